"""AsyncOutputQueue: where an event loop waits for what comes of one request.

A reader gets all that came since the last read, as one piece for each answer. All readers of a loop
are woken by one Wakeup: what a step gave many of them takes one call into the loop. A file of its
own, so that programs without an event loop do not load asyncio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType

from octavo.errors import UsageError
from octavo.request import StreamChunk, TokenLogprobs
from octavo.serving.output_queue import OutputQueue, Update


class Wakeup:
    """Wakes readers in the event loop that it is made in, from any thread."""

    def __init__(self) -> None:
        self.event_loop = asyncio.get_running_loop()
        self._to_wake: deque[Callable[[], None]] = deque()
        self._is_due = False  # it will look again

    @property
    def is_here(self) -> bool:
        return self.event_loop is asyncio.get_running_loop()

    def wake(self, reader: Callable[[], None]) -> None:
        """Have `reader` called in the event loop; never, if that was closed."""
        self._to_wake.append(reader)
        if not self._is_due:
            self._is_due = True
            with suppress(RuntimeError):  # the loop was closed: then nobody reads
                self.event_loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        self._is_due = False  # before the look: what comes after it calls again
        for _ in range(len(self._to_wake)):  # and lets others run first: steps may be the faster
            self._to_wake.popleft()()


class AsyncOutputQueue(OutputQueue):
    """A queue of the outputs of one request, read in the event loop it is made in."""

    def __init__(
        self,
        cancel: Callable[[OutputQueue], None],
        *,
        streams: bool,
        on_end: Callable[[AsyncOutputQueue], None],
        wakeup: Wakeup,
    ) -> None:
        """`wakeup` is that of the event loop."""
        super().__init__(cancel, 1, streams=streams)
        self._on_end = on_end
        self._wakeup = wakeup
        self._tell: Callable[[], None] = _nobody  # calls the reader
        self._is_woken = True  # it will look again, whoever puts something in
        self._chunks: deque[StreamChunk] = deque()  # to be read, by `next_chunk`
        self._error: Exception | None = None  # to be raised after them
        self._trace: TracebackType | None = None  # of it

    @property
    def is_dead(self) -> bool:
        return self._wakeup.event_loop.is_closed()

    def put(self, update: Update) -> None:
        if update.ends:
            self._on_end(self)
        super().put(update)
        self._wake()

    def check_reader(self) -> None:
        """Raises UsageError in another event loop: what is put in would never wake it."""
        if not self._wakeup.is_here:
            raise UsageError("a stream is read in the event loop it was made in: make it there")

    def take(self, tell: Callable[[], None]) -> Sequence[StreamChunk]:
        """All that came, as one piece for each answer; the last one has the output. Where nothing
        did, `tell` is called in the event loop when something does: who got something reads again
        by itself. Raises what ended the request."""
        self._tell = tell
        self._is_woken = False  # before the look: what comes after it calls again
        found = _merged(self._new_chunks())
        if found:
            self._is_woken = True
        elif self._error is not None:
            raise self._error.with_traceback(self._trace)
        return found

    def forget_reader(self) -> None:
        """It reads no more: what it holds, which may hold this, goes with its last holder."""
        self._tell = _nobody

    async def next_chunk(self) -> StreamChunk:
        """Wait for the next piece; the last one has the output. Raises what ended the request."""
        while not self._chunks:
            waiter = self._wakeup.event_loop.create_future()
            self._chunks.extend(self.take(partial(_end, waiter)))
            if not self._chunks:
                await waiter
        return self._chunks.popleft()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._wakeup.wake(self._call_reader)

    def _call_reader(self) -> None:
        self._tell()

    def _new_chunks(self) -> list[StreamChunk]:
        chunks = list(self._chunks)
        self._chunks.clear()
        while not self._updates.empty():
            update = self._updates.get_nowait()
            chunks += update.chunks
            if self._error is None:
                self._error, self._trace = update.error, update.trace
        return chunks


def _nobody() -> None:
    """Nobody waits."""


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # it was cancelled
        waiter.set_result(None)


def _merged(chunks: list[StreamChunk]) -> list[StreamChunk]:
    """Merge updates into one piece for each answer; the last one has the output, if any has."""
    if len(chunks) < 2:
        return chunks
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
            logprobs=_joined_logprobs(pieces),
            finish_reason=pieces[-1].finish_reason,
        )
        for index, pieces in answers.items()
    ]
    if output is not None:
        merged[-1].output = output
    return merged


def _joined_logprobs(pieces: Sequence[StreamChunk]) -> tuple[TokenLogprobs, ...] | None:
    if pieces[0].logprobs is None:
        return None
    return tuple(each for piece in pieces for each in piece.logprobs or ())
