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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from octavo.config import EngineConfig, ServingConfig, ServingOptions
from octavo.constraint import Constraint
from octavo.errors import EngineClosedError
from octavo.grammar import GrammarSpec
from octavo.loaded_model import ModelInfo
from octavo.options import takes
from octavo.records import CacheView, Pin, StepRecord, Totals
from octavo.request import Pooling, RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.serving.async_output_queue import Wakeup
from octavo.serving.engine_loop import EngineLoop
from octavo.serving.llm import LLM
from octavo.serving.open_requests import OpenRequests
from octavo.serving.own_pins import OwnPins
from octavo.serving.prepare import Messages, PreparedRequest, Prompt, Tools, to_embed
from octavo.serving.stats import engine_stats
from octavo.serving.token_stream import TokenStream
from octavo.tokenizer import Tokenizer
from octavo.tokenizer.chat import ChatEnd

T = TypeVar("T")


class AsyncEngine:
    """Open from its construction until `aclose`, which `async with` calls. One that is dropped
    takes no new requests, and its pins end with it.

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
        serving = ServingConfig(**options)
        self._requests = OpenRequests(serving.max_waiting)
        kv, cache = llm.loop.engine.kv, llm.loop.engine.cache
        self.pins = OwnPins(cache, int(serving.pin_memory * kv.budget))
        self._wakeup: Wakeup | None = None  # of the event loop that asked last
        self._may_have_pins = False  # or they are being made
        self._cache = cache  # its doors are for the engine's thread
        self._compiler = ThreadPoolExecutor(1, "octavo-grammar")  # its thread: with the first one
        llm.loop.start()
        llm.lend(self._requests)
        weakref.finalize(self, _drop, llm.loop, self._requests, self.pins).atexit = False

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
        *,
        pieces: bool = True,
    ) -> TokenStream:
        """Complete a prompt, piece by piece; needs a running event loop. Token ids are queued at
        once, a text as soon as it is encoded. Without `pieces` there is only the last one, with the
        whole output. Raises OverloadedError and EngineClosedError; UsageError here of token ids and
        in reading of a text; reading raises OutOfMemoryError if the request can never fit."""
        work_out = partial(self._llm.preparer.one, prompt, params, options, streams=pieces)
        request: PreparedRequest | Callable[[], PreparedRequest] = work_out
        if not isinstance(prompt, str):  # to check token ids is quick, to encode a text may not be
            request = work_out()
        wakeup = self._wakeup_here()
        return TokenStream(self._llm.loop, self._requests, request, wakeup=wakeup, pieces=pieces)

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> RequestOutput:
        """Complete a prompt. Raises what `stream` and reading it raise."""
        chunk = await anext(self.stream(prompt, params, options, pieces=False))
        assert chunk.output is not None
        return chunk.output

    async def embed(
        self,
        prompt: Prompt,
        options: RequestOptions | None = None,
        *,
        pooling: Pooling = "last",
    ) -> RequestOutput:
        """The `embedding` of a prompt, as `LLM.embed` gives it. Raises as `generate`."""
        return await self.generate(prompt, None, to_embed(options, pooling))

    async def drain(self) -> None:
        """Take no new requests, and wait for the end of those that are open."""
        self._requests.stop_accepting()
        await asyncio.wrap_future(self._requests.all_ended)

    async def aclose(self) -> None:
        """Take no new requests, end the open ones with what they have (finish_reason "abort"), and
        wait for their end; its pins are given up. Closing twice is one close; the LLM stays
        usable."""
        for output in self._requests.stop_accepting():
            self._llm.loop.abort(output)
        self._compiler.shutdown(wait=False, cancel_futures=True)
        await asyncio.wrap_future(self._requests.all_ended)
        if self._may_have_pins:
            await self._ask(self.pins.unpin_all)

    async def pin(
        self, token_ids: Sequence[int], cache_salt: str = "", *, owner: str = "", part: float = 1.0
    ) -> Pin:
        """Keep the beginning of a prompt in the cache: all its whole blocks that are there, or none
        if `pin_memory` would be exceeded, or the part of it that the owner's pins may hold;
        `why_not` says so. Raises UsageError of the ids, and EngineClosedError."""
        tokens = self._llm.preparer.token_ids("pin", token_ids)
        self._may_have_pins = True
        return await self._ask(partial(self._pin, tokens, cache_salt, owner, part))

    async def unpin(self, pin: Pin) -> bool:
        """Give up a pin; False if it was given up before, or cleared."""
        return await self._ask(partial(self.pins.unpin, pin))

    async def cached(self, token_ids: Sequence[int], cache_salt: str = "") -> int:
        """How many tokens a prompt that goes on from these would find now."""
        return await self._ask(partial(self._cache.cached, tuple(token_ids), cache_salt))

    async def view(self, cache_salt: str = "", *, most: int = 20) -> CacheView:
        """The cache as it is between two steps; pins, and the `most` best prefixes with their
        texts, are those of one salt."""
        view = await self._ask(partial(self._cache.view, cache_salt, most))
        return await asyncio.to_thread(self._with_texts, view)

    async def clear(self, cache_salt: str | None = None) -> int:
        """Give up the pins and forget the tokens of a salt, or of all, but for what running
        requests hold; how many blocks of the cache that were."""
        return await self._ask(partial(self._cache.clear, cache_salt))

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

    def prefill_seconds(self, tokens: int) -> float | None:
        """How long a prompt of so many tokens takes at the measured rate, None before one was
        measured."""
        return self._llm.loop.engine.budget.seconds(0, tokens)

    @property
    def totals(self) -> Totals:
        """What all requests of the LLM added up to so far, those that were read to their end among
        them."""
        return self._llm.loop.totals

    def stats(self) -> dict[str, object]:
        """Counts over the kept step records, and the pool as it is."""
        return engine_stats(self._llm.loop.engine, self._llm.info)

    @property
    def embedding_size(self) -> int:
        """Numbers in an embedding."""
        return self._llm.model_config.hidden_size

    def template_for(self, *, tools: bool) -> str | None:
        """The model's chat template, of chats with tools or without; None where it has none."""
        return self._llm.template_for(tools=tools)

    async def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, checked against the vocabulary and the context."""
        return await asyncio.to_thread(self._llm.encode, prompt)

    async def encode_chat(
        self,
        messages: Messages,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
        tools: Tools | None = None,
        template_args: Mapping[str, Any] | None = None,
        end: ChatEnd = "answer",
    ) -> list[int]:
        """The token ids of a conversation, up to where the answer begins. As `LLM.encode_chat`."""
        return await asyncio.to_thread(
            self._llm.encode_chat,
            messages,
            chat_template=chat_template,
            parse_special=parse_special,
            tools=tools,
            template_args=template_args,
            end=end,
        )

    async def compile_grammar(self, spec: GrammarSpec) -> Constraint:
        """What an answer may say, for `RequestOptions.constraint`. One is compiled at a time, in a
        thread of its own. Raises GrammarError, UsageError without llguidance, EngineClosedError."""
        grammars = self._llm.preparer.grammars
        found = grammars.find(spec)
        if found is not None:
            return found
        loop = asyncio.get_running_loop()
        try:
            compiling = loop.run_in_executor(self._compiler, grammars.compile, spec)
        except RuntimeError:
            raise EngineClosedError("the engine is closed and compiles no grammars") from None
        return await compiling

    def _wakeup_here(self) -> Wakeup:
        wakeup = self._wakeup
        if wakeup is None or not wakeup.is_here:
            wakeup = self._wakeup = Wakeup()
        return wakeup

    def _pin(self, tokens: Sequence[int], salt: str, owner: str, part: float) -> Pin:
        """In the engine's thread, so that what was pinned is known whoever waits for it still."""
        if self._requests.is_closed:
            raise EngineClosedError("the engine is closed and pins nothing")
        return self.pins.pin(tokens, salt, owner, part)

    async def _ask(self, work: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._llm.loop.ask(work))

    def _with_texts(self, view: CacheView) -> CacheView:
        decode = partial(self.tokenizer.decode, skip_special=False)
        told = (replace(prefix, text=decode(prefix.token_ids)) for prefix in view.prefixes)
        return replace(view, prefixes=tuple(told))


def _drop(loop: EngineLoop, requests: OpenRequests, pins: OwnPins) -> None:
    """An AsyncEngine is gone, closed or not. The garbage collector calls this."""
    requests.release()
    loop.soon(lambda _: pins.unpin_all())
