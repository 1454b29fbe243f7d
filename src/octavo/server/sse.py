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

PING = 10.0  # seconds of silence after which one is sent
_COMMENT = b": ping\n\n"
PING_EVENT = b'event: ping\ndata: {"type": "ping"}\n\n'  # Anthropic's
_DONE = b"data: [DONE]\n\n"


class EventStream:
    """Write events to one reader. Use it as a context: in the end no ping comes any more."""

    def __init__(self, send: Send) -> None:
        self.ping: bytes = _COMMENT
        self.error_name: str | None = None  # of an error's event
        self._send = send
        self._written_at = time.monotonic()
        self._pinger: asyncio.Task[None] | None = None
        self._is_open = True
        self._unsent = b""  # of pieces that the reader was waited for with when they were cancelled

    async def __aenter__(self) -> EventStream:
        self._pinger = asyncio.create_task(self._send_pings())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pinger is not None:
            self._pinger.cancel()

    async def write(self, events: Iterable[Event]) -> None:
        """Write events as one piece."""
        frames = b"".join(map(frame, events))
        if frames:
            await self._write(frames)

    async def end(self, *, done: bool) -> None:
        """The stream is whole; `done` says so in OpenAI's way."""
        self._is_open = False
        await self._write(_DONE if done else b"", more=False)

    async def fail(self, error: Event) -> None:
        """End it with an error, and without what says that it is whole."""
        if self._is_open:
            self._is_open = False
            await self._write(frame(error), more=False)

    async def _send_pings(self) -> None:
        while True:
            silent = time.monotonic() - self._written_at
            if silent >= PING and self._is_open:
                await self._write(self.ping)
            await asyncio.sleep(max(0.05, PING - silent) if silent < PING else PING)

    async def _write(self, frames: bytes, *, more: bool = True) -> None:
        frames, self._unsent = self._unsent + frames, b""
        try:
            await self._send({"type": "http.response.body", "body": frames, "more_body": more})
        except asyncio.CancelledError:  # what ends the stream comes behind them
            self._unsent = frames + self._unsent
            raise
        self._written_at = time.monotonic()


def frame(event: Event) -> bytes:
    data = b"data: " + orjson.dumps(event.data) + b"\n\n"
    return data if event.name is None else b"event: " + event.name.encode() + b"\n" + data
