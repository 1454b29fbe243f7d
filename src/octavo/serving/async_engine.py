"""AsyncEngine: a model for asyncio programs, and a server's only door to it.

Prompts come in, pieces of text go out while the engine's own thread works; the event loop never
waits for a step, and texts are encoded and chat templates rendered in its executor's threads. What
is wrong with a request is raised where it is made, or where it is read. `LLM`'s own methods may be
used beside it, and several event loops may share it.

Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from octavo.config import EngineConfig, ServingConfig, ServingOptions
from octavo.loaded_model import ModelInfo
from octavo.options import takes
from octavo.records import StepRecord
from octavo.request import RequestOptions, RequestOutput, StreamChunk
from octavo.sampling_params import SamplingParams
from octavo.serving.answer_desk import Ask
from octavo.serving.engine_thread import EngineThread
from octavo.serving.llm import LLM, Messages, Prompt
from octavo.serving.mailbox import Mailbox
from octavo.tokenizer import Tokenizer


class TokenStream:
    """The pieces of one request, for `async for` in the event loop it was made in. What came since
    the last read is one piece, for each answer; the last piece has the whole output.

    Dropping it, `aclose`, and a cancelled read end the request before its next step.
    """

    def __init__(
        self, thread: EngineThread, ask: Ask | Callable[[], Ask], *, pieces: bool = True
    ) -> None:
        """`ask` that has to be worked out first is called in a thread of the loop's executor."""
        self._is_open = False
        self._thread = thread
        self._mailbox = Mailbox(streams=pieces)
        thread.open(self._mailbox)
        self._is_open = True
        if isinstance(ask, Ask):
            thread.submit(self._mailbox, ask)
        else:
            job = partial(_submit, thread, self._mailbox, ask)
            asyncio.get_running_loop().run_in_executor(None, job)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        if not self._is_open:
            raise StopAsyncIteration
        self._mailbox.check_reader()
        try:
            chunk = await self._mailbox.get()
        except BaseException:  # the reader was cancelled, or the request failed
            self._close()
            raise
        if chunk.output is not None:
            self._is_open = False
        return chunk

    async def aclose(self) -> None:
        """End the request, if it has not ended."""
        self._close()

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._thread.withdraw(self._mailbox)


def _submit(thread: EngineThread, mailbox: Mailbox, work_out: Callable[[], Ask]) -> None:
    """Work out a request and queue it. Its reader gets what is raised, also by panics of Rust."""
    try:
        if not mailbox.is_withdrawn:
            thread.submit(mailbox, work_out())
    except Exception as error:
        thread.refuse(mailbox, error)
    except BaseException as error:
        thread.refuse(mailbox, RuntimeError(f"the prompt could not be encoded: {error}"))
        raise


class AsyncEngine:
    """Open from its construction until `aclose`, which `async with` calls.

        async with AsyncEngine(LLM("smollm2")) as engine:
            async for chunk in engine.stream("The capital of France is"):
                print(chunk.text, end="")

    A failure of one request is raised to its reader. A step of the engine that fails changes
    nothing that it did not finish, and is run again; if it then fails too, that is raised to the
    readers of all requests that are open, and the engine goes on with the next.
    """

    @takes(ServingConfig)
    def __init__(self, llm: LLM, **options: Unpack[ServingOptions]) -> None:
        """Raises UsageError if the LLM has an AsyncEngine that is not closed, and KernelError if
        no thread can be started. The options, checked by range:"""
        self._llm = llm
        self._thread = EngineThread(llm.desk, max_waiting=ServingConfig(**options).max_waiting)
        weakref.finalize(self, self._thread.forsake)

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> TokenStream:
        """Complete a prompt, piece by piece; needs a running event loop. Token ids are queued at
        once, a text as soon as it is encoded. Raises OverloadedError and EngineClosedError;
        UsageError here of token ids and in reading of a text; reading raises OutOfMemoryError if
        the request can never fit."""
        return TokenStream(
            self._thread, _ask(prompt, partial(self._llm.prepare_stream, prompt, params, options))
        )

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> RequestOutput:
        """Complete a prompt. Raises what `stream` and reading it raise."""
        ask = _ask(prompt, partial(self._llm.prepare, prompt, params, options))
        chunk = await anext(TokenStream(self._thread, ask, pieces=False))
        assert chunk.output is not None
        return chunk.output

    async def drain(self) -> None:
        """Take no new requests, and wait for the end of those that are open."""
        self._thread.shut()
        await self._thread.join()

    async def aclose(self) -> None:
        """Take no new requests, end the open ones with what they have (finish_reason "abort"), and
        wait for the end of the thread. Closing twice is one close; the LLM stays usable."""
        self._thread.shut()
        self._thread.abort_all()
        await self._thread.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def config(self) -> EngineConfig:
        return self._llm.config

    @property
    def info(self) -> ModelInfo:
        return self._llm.info

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns token ids into text; the `Vocabulary` of `octavo.protocol`."""
        return self._llm.tokenizer

    @property
    def records(self) -> list[StepRecord]:
        """The steps so far, oldest first; a bounded number of them."""
        return self._llm.records

    def stats(self) -> dict[str, object]:
        """Counts over the kept step records, and the pool as it is."""
        return self._llm.stats()

    async def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, checked against the vocabulary and the context."""
        return await asyncio.to_thread(self._llm.encode, prompt)

    async def encode_chat(
        self,
        messages: Messages,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> list[int]:
        """The token ids of a conversation, up to where the answer begins."""
        return await asyncio.to_thread(
            self._llm.encode_chat,
            messages,
            chat_template=chat_template,
            parse_special=parse_special,
        )


def _ask(prompt: Prompt, work_out: Callable[[], Ask]) -> Ask | Callable[[], Ask]:
    """Checking token ids is quick; encoding a text may not be."""
    return work_out if isinstance(prompt, str) else work_out()
