"""Pieces: what comes of some prompts, on its way to one reader, and beside it how far they are.

Knows streams of the engine and events, no API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from octavo.protocol.streams import AnswerWriter, Event
from octavo.records import CacheRecord
from octavo.request import Progress, StreamChunk
from octavo.server.beat import Beat
from octavo.server.outcome import Outcome
from octavo.server.sse import EventStream

TellProgress = Callable[[int, Progress], Sequence[Event]]
_PROGRESS_GAP = 0.25  # seconds: with the end of a prompt five in a second, and no more
_ALL = -1  # tokens of a prompt: it is computed


class Stream(Protocol):
    """The pieces of one prompt's answer; the last has the output."""

    @property
    def is_waiting(self) -> bool: ...
    @property
    def cache(self) -> CacheRecord | None: ...
    @property
    def progress(self) -> Progress | None: ...
    def __aiter__(self) -> AsyncIterator[StreamChunk]: ...
    def take(self, tell: Callable[[], None]) -> Sequence[StreamChunk]:
        """Return what came; `tell` is called when something does, where nothing had."""

    async def aclose(self) -> None: ...


class Pieces:
    """What comes of some prompts, written to one reader as it comes, with a gap between two pieces.

    The event loop itself calls for each piece: a task is woken at the end alone, by an error, and
    where the reader has to be waited for."""

    def __init__(
        self,
        events: EventStream,
        streams: Sequence[Stream],
        writer: AnswerWriter,
        outcome: Outcome,
        told: Told | None,
        *,
        beat: Beat,
        gap: Callable[[], float],
    ) -> None:
        """`gap`: seconds between two pieces, as they are now."""
        self._events = events
        self._writer = writer
        self._outcome = outcome
        self._told = told
        self._beat = beat
        self._gap = gap
        self._left = dict(enumerate(streams))  # without an output so far
        self._due = 0.0  # when the next piece may be written
        self._is_held = False  # a look is due, at a known time or by the task: none before
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None  # of it
        self._is_wanted = asyncio.Event()  # the task

    async def write_all(self) -> None:
        """Return when all outputs are there. Raises what a stream raised."""
        try:
            self._look()
            while True:
                await self._is_wanted.wait()
                self._is_wanted.clear()
                await self._events.flush()
                if self._error is not None:
                    raise self._error.with_traceback(self._trace)  # others raise it too
                if not self._left:
                    return
                self._is_held = False
                self._look()
        finally:
            self._left = {}  # nothing is written any more

    def _look(self) -> None:
        """Something came: write it now, or when it is time."""
        if self._is_held:
            return
        self._is_held = True
        if self._beat.is_time(self._due):
            self._write()
        else:
            self._beat.at(self._due, self._write)

    def _write(self) -> None:
        """Write what came. Nobody tells of what comes next: it is looked again when it is time,
        until nothing has come."""
        if not self._left:
            return
        is_new, is_written = False, True
        try:
            is_new, is_written = self._write_new()
        except BaseException as error:  # is the task's: who is called next knows nothing of it
            self._error, self._trace = error, error.__traceback__
        if self._error is not None or not self._left or not is_written:
            self._is_wanted.set()
        elif is_new:
            self._beat.at(self._due, self._write)
        else:
            self._is_held = False

    def _write_new(self) -> tuple[bool, bool]:
        """Return whether something came, and whether all of it is written; else the reader has to
        be waited for."""
        is_new, is_written = False, True
        for index in tuple(self._left):
            if chunks := self._left[index].take(self._look):
                events = [event for each in chunks for event in self._events_of(index, each)]
                is_new, is_written = True, self._events.put(events)
                if events:  # a token without a text of its own keeps no text waiting
                    self._due = self._beat.after(self._gap())
        return is_new, is_written

    def _events_of(self, index: int, chunk: StreamChunk) -> Sequence[Event]:
        if self._told is not None:
            self._told.computed(index)
        if chunk.output is not None:
            self._outcome.outputs[index] = chunk.output
            del self._left[index]
        self._outcome.num_told += len(chunk.token_ids)
        return self._writer.piece(index, chunk)


@asynccontextmanager
async def telling(
    events: EventStream, streams: Sequence[Stream], progress: TellProgress | None
) -> AsyncIterator[Told | None]:
    """Meanwhile tell how far the prompts are, if that is wanted."""
    if progress is None:
        yield None
        return
    told = Told(events, streams, progress)
    telling = asyncio.create_task(told.tell())
    try:
        yield told
    finally:
        telling.cancel()
        await asyncio.wait({telling})


class Told:
    """How far prompts are, and how much of it was told."""

    def __init__(
        self, events: EventStream, streams: Sequence[Stream], progress: TellProgress
    ) -> None:
        self._events = events
        self._streams = streams
        self._progress = progress
        self._seen: dict[int, int] = {}  # tokens that were told, by prompt

    async def tell(self) -> None:
        """Say how far the prompts are, from time to time, until all are computed."""
        while any(self._seen.get(i) != _ALL for i in range(len(self._streams))):
            for i, stream in enumerate(self._streams):
                found = stream.progress
                if found is not None and self._seen.get(i) not in (found.processed, _ALL):
                    self._say(i, found)
            await self._events.flush()
            await asyncio.sleep(_PROGRESS_GAP)

    def computed(self, index: int) -> None:
        """A prompt has its first token: it was told, or is now, to its end."""
        found = self._streams[index].progress
        if self._seen.get(index) != _ALL and found is not None:
            self._say(index, replace(found, processed=found.total, eta_ms=0.0))

    def _say(self, index: int, found: Progress) -> None:
        self._seen[index] = _ALL if found.processed == found.total else found.processed
        self._events.put(self._progress(index, found))
