"""TokenStream: the pieces of one request, read in an event loop.

Comes in: a prepared request, or what works one out. Goes out: pieces of text, and the output.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from octavo.records import CacheRecord
from octavo.request import Progress, StreamChunk
from octavo.serving.async_output_queue import AsyncOutputQueue, Wakeup
from octavo.serving.engine_loop import EngineLoop
from octavo.serving.open_requests import OpenRequests
from octavo.serving.output_queue import Update
from octavo.serving.prepare import PreparedRequest
from octavo.serving.progress import progress
from octavo.serving.request_text import cache_record


class TokenStream:
    """The pieces of one request, for `async for` in the event loop it was made in. What came since
    the last read is one piece, for each answer; the last piece has the whole output.

    Dropping it, `aclose`, and a cancelled read end the request before its next step.
    """

    def __init__(
        self,
        loop: EngineLoop,
        open_requests: OpenRequests,
        request: PreparedRequest | Callable[[], PreparedRequest],
        *,
        wakeup: Wakeup,
        pieces: bool = True,
    ) -> None:
        """A `request` that has to be worked out first is so in a thread of the event loop's
        executor. Without `pieces` there is only the last one."""
        self._is_open = False
        self._loop = loop
        loop.start()
        self._outputs = AsyncOutputQueue(
            loop.cancel, streams=pieces, on_end=open_requests.leave, wakeup=wakeup
        )
        open_requests.enter(self._outputs)
        self._is_open = True
        if isinstance(request, PreparedRequest):
            loop.submit(self._outputs, [request])
        else:
            asyncio.get_running_loop().run_in_executor(None, _submit, loop, self._outputs, request)

    @property
    def is_waiting(self) -> bool:
        """Whether it is queued, and has not begun to run."""
        return self._is_open and self._outputs.is_waiting

    @property
    def cache(self) -> CacheRecord | None:
        """What was found of its prompt; None before it has begun to run."""
        (request,) = self._outputs.requests or (None,)
        return None if request is None else cache_record(request, self._loop.tokenizer)

    @property
    def progress(self) -> Progress | None:
        """How far its prompt is; None before it has begun to run."""
        (request,) = self._outputs.requests or (None,)
        return None if request is None else progress(request, self._loop.engine)

    def __aiter__(self) -> Self:
        return self

    def take(self, tell: Callable[[], None]) -> Sequence[StreamChunk]:
        """What came since the last read, without waiting. Where nothing did, `tell` is called in
        the event loop when something does, but for what is closed. Raises what reading it does."""
        if not self._is_open:
            return ()
        self._outputs.check_reader()
        try:
            chunks = self._outputs.take(tell)
        except BaseException:
            self._close()
            raise
        if chunks and chunks[-1].output is not None:
            self._end()
        return chunks

    async def __anext__(self) -> StreamChunk:
        if not self._is_open:
            raise StopAsyncIteration
        self._outputs.check_reader()
        try:
            chunk = await self._outputs.next_chunk()
        except BaseException:  # the reader was cancelled, or the request failed
            self._close()
            raise
        if chunk.output is not None:
            self._end()
        return chunk

    async def aclose(self) -> None:
        """End the request, if it has not ended."""
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._end()
            self._loop.cancel(self._outputs)

    def _end(self) -> None:
        self._is_open = False
        self._outputs.forget_reader()


def _submit(
    loop: EngineLoop, output: AsyncOutputQueue, work_out: Callable[[], PreparedRequest]
) -> None:
    """Work out a request and queue it. Its reader gets what is raised, also by panics of Rust."""
    try:
        if not output.is_cancelled:
            loop.submit(output, [work_out()])
    except Exception as error:
        output.put(Update(error=error))
    except BaseException as error:
        output.put(Update(error=RuntimeError(f"the prompt could not be encoded: {error}")))
        raise
