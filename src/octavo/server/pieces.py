"""Pieces: those of several prompts as one stream, and beside them how far the prompts are.

Knows streams of the engine and events, no API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from octavo.protocol.streams import Event
from octavo.records import CacheRecord
from octavo.request import Progress, StreamChunk
from octavo.server.sse import EventStream

TellProgress = Callable[[int, Progress], Sequence[Event]]
_PROGRESS_GAP = 0.2  # seconds
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
    async def aclose(self) -> None: ...


async def merged(streams: Sequence[Stream]) -> AsyncGenerator[tuple[int, StreamChunk]]:
    """The pieces of all streams as they come, each with the index of its own."""
    if len(streams) == 1:
        async for chunk in streams[0]:
            yield 0, chunk
        return
    queue: asyncio.Queue[tuple[int, StreamChunk] | BaseException | None] = asyncio.Queue()

    async def read_all(index: int, stream: Stream) -> None:
        try:
            async for chunk in stream:
                queue.put_nowait((index, chunk))
            queue.put_nowait(None)
        except BaseException as error:
            queue.put_nowait(error)
            raise

    tasks = [asyncio.create_task(read_all(i, stream)) for i, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
        """From time to time, until all prompts are computed."""
        while any(self._seen.get(i) != _ALL for i in range(len(self._streams))):
            for i, stream in enumerate(self._streams):
                found = stream.progress
                if found is not None and self._seen.get(i) not in (found.processed, _ALL):
                    await self._say(i, found)
            await asyncio.sleep(_PROGRESS_GAP)

    async def computed(self, index: int) -> None:
        """A prompt has its first token: it was told, or is now, to its end."""
        found = self._streams[index].progress
        if self._seen.get(index) != _ALL and found is not None:
            await self._say(index, replace(found, processed=found.total, eta_ms=0.0))

    async def _say(self, index: int, found: Progress) -> None:
        self._seen[index] = _ALL if found.processed == found.total else found.processed
        await self._events.write(self._progress(index, found))
