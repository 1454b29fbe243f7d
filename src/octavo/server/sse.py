"""Server-sent events: frames of bytes, one write a piece, a ping in silence, an end that says
whether the stream is whole.

Knows bytes and dicts, no API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson

from octavo.protocol.streams import Event

Send = Callable[[dict[str, Any]], Awaitable[None]]
WriteNow = Callable[[bytes], bool]  # False: it can only be sent

PING = 10.0  # seconds of silence after which one is sent
_COMMENT = b": ping\n\n"
PING_EVENT = b'event: ping\ndata: {"type": "ping"}\n\n'  # Anthropic's
_DONE = b"data: [DONE]\n\n"


class EventStream:
    """Write events to one reader. Use it as a context: in the end no ping comes any more."""

    def __init__(self, send: Send, write_now: WriteNow | None = None) -> None:
        self.ping: bytes = _COMMENT
        self.error_name: str | None = None  # of an error's event
        self._send = send
        self._write_now = write_now or _never
        self._written_at = time.monotonic()
        self._pinger: asyncio.Task[None] | None = None
        self._is_open = True
        self._unsent = b""  # that the reader has to be waited for with
        self._sending = asyncio.Lock()  # of who waits for the reader

    async def __aenter__(self) -> EventStream:
        self._pinger = asyncio.create_task(self._send_pings())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
            self._pinger = None  # its error holds this

    def put(self, events: Iterable[Event]) -> bool:
        """Write events as one piece; False where the reader has to be waited for, by `flush`."""
        return self._put(b"".join(map(frame, events)))

    async def flush(self) -> None:
        """Wait for the reader with what was put and not written."""
        if self._unsent:
            await self._flush()

    async def write(self, events: Iterable[Event]) -> None:
        """Write events as one piece, and wait for the reader if that is needed."""
        if not self.put(events):
            await self._flush()

    async def end(self, *, done: bool) -> None:
        """The stream is whole; `done` says so in OpenAI's way."""
        self._is_open = False
        self._unsent += _DONE if done else b""
        await self._flush(more=False)

    async def fail(self, error: Event) -> None:
        """End it with an error, and without what says that it is whole."""
        if self._is_open:
            self._is_open = False
            self._unsent += frame(error)
            await self._flush(more=False)

    async def _send_pings(self) -> None:
        while True:
            silent = time.monotonic() - self._written_at
            if silent >= PING and self._is_open and not self._put(self.ping):
                await self._flush()
            await asyncio.sleep(max(0.05, PING - silent) if silent < PING else PING)

    def _put(self, frames: bytes) -> bool:
        if frames:
            if self._unsent or self._sending.locked() or not self._write_now(frames):
                self._unsent += frames
            else:
                self._written_at = time.monotonic()
        return not self._unsent

    async def _flush(self, *, more: bool = True) -> None:
        async with self._sending:
            frames, self._unsent = self._unsent, b""
            try:
                await self._send({"type": "http.response.body", "body": frames, "more_body": more})
            except asyncio.CancelledError:  # what ends the stream comes behind them
                self._unsent = frames + self._unsent
                raise
        self._written_at = time.monotonic()


def _never(_: bytes) -> bool:
    return False


def frame(event: Event) -> bytes:
    data = b"data: " + orjson.dumps(event.data) + b"\n\n"
    return data if event.name is None else b"event: " + event.name.encode() + b"\n" + data
