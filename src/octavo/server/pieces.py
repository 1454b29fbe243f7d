"""Pieces: those of several prompts as one stream, and beside them how far the prompts are.

Knows streams of the engine and events, no API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
) -> AsyncIterator[None]:
    """Meanwhile tell how far the prompts are, each until it is computed."""
    if progress is None:
        yield
        return
    telling = asyncio.create_task(_tell(events, streams, progress))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait({telling})


async def _tell(events: EventStream, streams: Sequence[Stream], progress: TellProgress) -> None:
    seen: dict[int, int] = {}  # tokens that were told, by prompt
    while any(seen.get(i) != _ALL for i in range(len(streams))):
        for i, stream in enumerate(streams):
            found = stream.progress
            if found is None or seen.get(i) in (found.processed, _ALL):
                continue
            await events.write(progress(i, found))
            seen[i] = _ALL if found.processed == found.total else found.processed
        await asyncio.sleep(_PROGRESS_GAP)
