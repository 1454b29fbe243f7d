"""Mailbox: where the reader of one request looks, and is told when to look again.

Told by whichever thread steps the engine, read in the event loop it was made in. The reader takes
what came of the answer itself, a piece for each of a request's answers: one that is slow finds more
in it and stalls nobody, and what breaks a step off takes nothing out. Knows no engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import replace

from octavo.errors import UsageError
from octavo.request import RequestOutput, StreamChunk
from octavo.serving.answer import Answer


class Mailbox:
    def __init__(self, *, streams: bool) -> None:
        """`streams`: are pieces wanted, or only the end?"""
        self.streams = streams
        self.is_withdrawn = False  # nobody reads it any more
        self.answer: Answer | None = None  # since the engine took the request
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # of the next two
        self._is_told = False  # the reader will look again
        self._ready = asyncio.Event()
        self._outcome: RequestOutput | Exception | None = None
        self._chunks: deque[StreamChunk] = deque()  # taken of the answer, to be read

    @property
    def is_waiting(self) -> bool:
        """The request has not begun to run, and somebody wants it to."""
        return not self.is_withdrawn and (self.answer is None or self.answer.request.cache is None)

    @property
    def is_dead(self) -> bool:
        """Nobody can read it any more."""
        return self._loop.is_closed()

    def tell(self, outcome: RequestOutput | Exception | None = None) -> None:
        """Any thread: there is more of the answer, or its end: the output, or why there is none."""
        if outcome is not None:
            self._outcome = outcome
        with self._lock:
            if not self._is_told:
                with suppress(RuntimeError):  # the loop was closed: then nobody reads
                    self._loop.call_soon_threadsafe(self._ready.set)
                self._is_told = True

    def check_reader(self) -> None:
        """Raises UsageError in another event loop: what is told here would never wake it."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("a stream is read in the event loop it was made in: make it there")

    async def get(self) -> StreamChunk:
        """The next piece; the last one has the output. Raises what ended the request."""
        while True:
            with self._lock:  # before the look: what comes after it is told
                self._ready.clear()
                self._is_told = False
            outcome = self._outcome  # before the pieces: none comes after it
            if self.streams and self.answer is not None and not self._chunks:
                self._chunks.extend(self.answer.take())
            output = outcome if isinstance(outcome, RequestOutput) else None
            if self._chunks or output is not None:
                chunk = self._chunks.popleft() if self._chunks else StreamChunk("", ())
                return chunk if self._chunks else replace(chunk, output=output)
            if isinstance(outcome, Exception):
                raise outcome
            await self._ready.wait()
