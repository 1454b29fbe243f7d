"""Mailbox: what came for one request since its reader last looked.

Filled by whichever thread steps the engine, emptied in the event loop it was made in. Holds at most
one piece for each answer, so a reader that is slow finds more in it, and stalls nobody. Knows no
engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from octavo.answer import Answer
from octavo.errors import UsageError
from octavo.request import RequestOutput, StreamChunk


@dataclass(slots=True)
class _Piece:
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)


class Mailbox:
    def __init__(self, *, streams: bool) -> None:
        """`streams`: are pieces wanted, or only the end?"""
        self.streams = streams
        self.is_withdrawn = False  # nobody reads it any more
        self.answer: Answer | None = None  # since the engine took the request
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pieces: dict[int, _Piece] = {}  # by index of the answer, oldest first
        self._outcome: RequestOutput | Exception | None = None
        self._ready = asyncio.Event()
        self._is_told = False  # the reader will look again

    @property
    def is_waiting(self) -> bool:
        """The request has not begun to run."""
        return self.answer is None or self.answer.request.cache is None

    @property
    def is_dead(self) -> bool:
        """Nobody can read it any more."""
        return self._loop.is_closed()

    def put(
        self, chunks: Iterable[StreamChunk], outcome: RequestOutput | Exception | None = None
    ) -> None:
        """Any thread. `outcome` comes last: the output, or why there is none."""
        with self._lock:
            for chunk in chunks:
                piece = self._pieces.setdefault(chunk.index, _Piece())
                piece.texts.append(chunk.text)
                piece.token_ids += chunk.token_ids
            self._outcome = outcome
            told, self._is_told = self._is_told, True
        if not told:
            with suppress(RuntimeError):  # the loop was closed: then nobody reads
                self._loop.call_soon_threadsafe(self._ready.set)

    def check_reader(self) -> None:
        """Raises UsageError in another event loop: what is put here would never wake it."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("a stream is read in the event loop it was made in: make it there")

    async def get(self) -> StreamChunk:
        """The next piece; the last one has the output. Raises what ended the request."""
        while True:
            with self._lock:
                chunk = self._take()
                if chunk is not None:
                    return chunk
                if isinstance(self._outcome, Exception):
                    raise self._outcome
                self._ready.clear()
                self._is_told = False
            await self._ready.wait()

    def _take(self) -> StreamChunk | None:
        index = next(iter(self._pieces), None)
        piece = _Piece() if index is None else self._pieces.pop(index)
        output = None
        if not self._pieces and isinstance(self._outcome, RequestOutput):
            output = self._outcome
        if index is None and output is None:
            return None
        return StreamChunk("".join(piece.texts), tuple(piece.token_ids), output, index or 0)
