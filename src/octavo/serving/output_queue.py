"""OutputQueue: where the reader of some requests waits for what comes of them.

The engine's thread puts in what each step gave, or how a request ended; a thread that reads blocks,
an event loop awaits, and then gets all that came since as one piece for each answer. Knows no
engine and no text.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from octavo.errors import UsageError
from octavo.request import Request, RequestOutput, StreamChunk


@dataclass(slots=True)
class Update:
    """What a step gave one request of a queue: pieces of text, its output when it has ended, and
    the error that ended it. One with an error alone ends all requests of the queue."""

    index: int = 0  # of the request
    chunks: Sequence[StreamChunk] = ()  # the last one of all has the output too
    output: RequestOutput | None = None
    error: Exception | None = None

    @property
    def ends(self) -> bool:
        return self.output is not None or self.error is not None


class OutputQueue:
    """A queue of outputs that one thread reads. As a context it cancels what has not
    ended when nobody reads any more."""

    def __init__(
        self, cancel: Callable[[OutputQueue], None], num_requests: int, *, streams: bool = False
    ) -> None:
        """`streams`: are pieces wanted, or only the ends?"""
        self.num_left = num_requests  # whose end was not read
        self.streams = streams
        self.requests: list[Request] = []  # since the engine took them
        self.is_cancelled = False  # nobody reads any more
        self.is_daemons = threading.current_thread().daemon  # to be told nothing when Python ends
        self._cancel = cancel
        # Its `put` may be called anywhere, and a signal handler may break its `get` off.
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.num_left:
            self._cancel(self)

    @property
    def is_dead(self) -> bool:
        """Whether nobody can read it any more."""
        return False

    def put(self, update: Update) -> None:
        self._updates.put(update)

    def get(self) -> Update:
        """Wait for the next update. Raises an error that ended all requests."""
        update = self._updates.get()
        if update.ends:
            self.num_left -= 1
            if update.output is None and update.error is not None:
                raise update.error
        return update


class AsyncOutputQueue(OutputQueue):
    """A queue of the outputs of one request, read in the event loop it is made in."""

    def __init__(
        self,
        cancel: Callable[[OutputQueue], None],
        *,
        streams: bool,
        on_end: Callable[[AsyncOutputQueue], None],
    ) -> None:
        super().__init__(cancel, 1, streams=streams)
        self._on_end = on_end
        self._event_loop = asyncio.get_running_loop()
        self._wakeup = asyncio.Event()
        self._is_woken = False  # it will look again
        self._chunks: deque[StreamChunk] = deque()  # to be read
        self._error: Exception | None = None  # to be raised after them

    @property
    def is_waiting(self) -> bool:
        """The request has not begun to run, and somebody wants it to."""
        return not self.is_cancelled and all(r.cache is None for r in self.requests)

    @property
    def is_dead(self) -> bool:
        return self._event_loop.is_closed()

    def put(self, update: Update) -> None:
        if update.ends:
            self._on_end(self)
        super().put(update)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop was closed: then nobody reads
                self._event_loop.call_soon_threadsafe(self._wakeup.set)

    def check_reader(self) -> None:
        """Raises UsageError in another event loop: what is put in would never wake it."""
        if asyncio.get_running_loop() is not self._event_loop:
            raise UsageError("a stream is read in the event loop it was made in: make it there")

    async def next_chunk(self) -> StreamChunk:
        """Wait for the next piece; the last one has the output. Raises what ended the request."""
        while not self._chunks:
            self._wakeup.clear()
            self._is_woken = False  # before the look: what comes after it wakes the loop again
            self._chunks.extend(_merged(self._new_chunks()))
            if not self._chunks:
                if self._error is not None:
                    raise self._error
                await self._wakeup.wait()
        return self._chunks.popleft()

    def _new_chunks(self) -> list[StreamChunk]:
        chunks: list[StreamChunk] = []
        while not self._updates.empty():
            update = self._updates.get_nowait()
            chunks += update.chunks
            self._error = self._error or update.error
        return chunks


def _merged(chunks: Iterable[StreamChunk]) -> list[StreamChunk]:
    """Merge updates into one piece for each answer; the last one has the output, if any has."""
    answers: dict[int, list[StreamChunk]] = {}
    output = None
    for chunk in chunks:
        answers.setdefault(chunk.index, []).append(chunk)
        output = output or chunk.output
    merged = [
        StreamChunk(
            text="".join(c.text for c in pieces),
            token_ids=tuple(t for c in pieces for t in c.token_ids),
            index=index,
            step=pieces[-1].step,
        )
        for index, pieces in answers.items()
    ]
    if output is not None:
        merged[-1] = replace(merged[-1], output=output)
    return merged
