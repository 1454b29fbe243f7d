"""LLM: the offline API. Text in, answers out; has a loaded model and the loop that runs it.

Not a server, but calls of several threads run beside each other, and beside an AsyncEngine.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from octavo.batch import FloatArray
from octavo.config import EngineConfig, EngineOptions
from octavo.constraint import Constraint
from octavo.errors import UsageError, counted
from octavo.grammar import GrammarSpec
from octavo.loaded_model import ModelInfo, load_model
from octavo.options import takes
from octavo.records import StepRecord
from octavo.request import Pooling, RequestOptions, RequestOutput, RowValues, StreamChunk
from octavo.sampling_params import SamplingParams
from octavo.serving.engine_loop import EngineLoop
from octavo.serving.open_requests import OpenRequests
from octavo.serving.output_queue import OutputQueue
from octavo.serving.pack_keeper import PackKeeper
from octavo.serving.prepare import (
    Messages,
    PreparedRequest,
    Prompt,
    RequestPreparer,
    Tools,
    of_a_turn,
    to_embed,
)
from octavo.serving.stats import engine_stats
from octavo.tokenizer.chat import ChatEnd

Stream = Generator[StreamChunk, None, None]

LOGITS_LIMIT = 2 << 30  # bytes that llm.logits may return

logger = logging.getLogger(__name__)


class LLM:
    """A loaded model, which answers prompts."""

    @takes(EngineConfig)
    def __init__(self, model: str | Path, **options: Unpack[EngineOptions]) -> None:
        """`model` is a library name, a GGUF file, a directory, or `hf:owner/name`, which is
        fetched. Raises UsageError, ModelError, DownloadError, OutOfMemoryError. The options,
        checked by range:"""
        self.config = EngineConfig(**options)  # type: ignore[arg-type]  # it reads sizes in text
        loaded = load_model(model, self.config)
        self.info = loaded.info
        self.model_config = loaded.model_config
        self.program = loaded.program
        self.tokenizer = loaded.tokenizer
        self.preparer = RequestPreparer(loaded)
        self.loop = EngineLoop(loaded.engine, loaded.tokenizer)  # which an AsyncEngine shares
        self._lent_to: weakref.ref[OpenRequests] | None = None  # of an AsyncEngine
        if loaded.to_keep is not None:
            keeper = PackKeeper(loaded.to_keep, self.loop.at_rest)
            keeper.start()
            weakref.finalize(self.loop, keeper.end).atexit = False
        if self.config.context is None and self.info.context < self.info.model_context:
            logger.warning("%s", _clamped(self.info))
        if self.info.sliding_context is None and self.info.context > self.info.model_context:
            logger.warning("%s", _beyond(self.info))
        if self.info.kv_warning is not None:
            logger.warning("%s", self.info.kv_warning)

    @property
    def records(self) -> list[StepRecord]:
        """The steps so far, oldest first; a bounded number of them."""
        return list(self.loop.engine.records)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        options: RequestOptions | Sequence[RequestOptions] | None = None,
    ) -> list[RequestOutput]:
        """Complete each prompt; all run in one batch. One SamplingParams for all, or one each."""
        requests = self.preparer.batch(prompts, params, options)
        found: dict[int, RequestOutput] = {}
        with OutputQueue(self.loop.cancel, len(requests)) as outputs:
            self.loop.submit(outputs, requests)
            while outputs.num_left:
                update = outputs.get()
                if update.error is not None:
                    raise update.error
                assert update.output is not None
                found[update.index] = update.output
        return [found[i] for i in range(len(requests))]

    def as_completed(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        options: RequestOptions | Sequence[RequestOptions] | None = None,
    ) -> Iterator[tuple[int, RequestOutput]]:
        """`generate`, giving (index of the prompt, output) as each is done. One that failed has
        finish_reason "error"."""
        requests = self.preparer.batch(prompts, params, options)
        with OutputQueue(self.loop.cancel, len(requests)) as outputs:
            self.loop.submit(outputs, requests)
            while outputs.num_left:
                update = outputs.get()
                assert update.output is not None
                yield update.index, update.output

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> RequestOutput:
        """Answer a conversation: messages with `role` and `content` (a text, or a list of text
        parts), in the model's template or this one, which gets whatever else is in them. Special
        tokens count in the template only, unless `parse_special`."""
        tokens = self.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )
        return self.generate([tokens], params, of_a_turn(options))[0]

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> Stream:
        """Complete a prompt, piece by piece; the last chunk has the whole output. Closing it early
        aborts."""
        return self._stream(self.preparer.one(prompt, params, options, streams=True))

    def chat_stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> Stream:
        """Answer as `chat` does, and give the answer piece by piece."""
        tokens = self.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )
        return self.stream(tokens, params, of_a_turn(options))

    def encode_chat(
        self,
        messages: Messages,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
        tools: Tools | None = None,
        template_args: Mapping[str, Any] | None = None,
        end: ChatEnd = "answer",
    ) -> list[int]:
        """The token ids of a conversation, up to where the answer begins; its template is told of
        these tools, as JSON schemas of functions, and given these variables of its own. With `end`
        "closed" they end behind the last message, with "open" in it: the answer continues it."""
        return self.preparer.encode_chat(
            messages,
            chat_template=chat_template,
            parse_special=parse_special,
            tools=tools,
            template_args=template_args,
            end=end,
        )

    def template_for(self, *, tools: bool) -> str | None:
        """The model's chat template, of chats with tools or without; None where it has none."""
        return self.tokenizer.spec.template_for(tools=tools)

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        options: RequestOptions | None = None,
        *,
        pooling: Pooling = "last",
    ) -> list[RequestOutput]:
        """The `embedding` of each prompt, of length 1: the last row of the model after its final
        norm, or the mean of all rows, for which nothing is read from the cache."""
        return self.generate(prompts, None, to_embed(options, pooling))

    def logits(self, token_ids: Sequence[int]) -> FloatArray:
        """The model's logits after every token, (len, vocab) float32, through the cache's pages; of
        all rows of the head, tokens or not."""
        tokens = self.preparer.token_ids("logits", token_ids)
        size = len(tokens) * self.program.logits_width * 4
        if size > LOGITS_LIMIT:
            most = LOGITS_LIMIT // (self.program.logits_width * 4)
            raise UsageError(
                f"logits of {len(tokens):,} tokens take {size:,} bytes: at most {most:,} tokens at "
                "once; llm.score needs far less"
            )
        return np.stack(self._row_values(tokens, "logits"))

    def score(self, token_ids: Sequence[int]) -> FloatArray:
        """log p(token | all before) of every token but the first, (len - 1,) float32."""
        tokens = self.preparer.token_ids("score", token_ids)
        return np.array(self._row_values(tokens, "scores"), np.float32)

    def stats(self) -> dict[str, object]:
        """Counts over the kept step records, and the pool as it is."""
        return self.loop.call(partial(engine_stats, self.loop.engine, self.info))

    def encode(self, prompt: Prompt, *, parse_special: bool = False) -> list[int]:
        """The token ids of a prompt, checked against the vocabulary and the context. Special tokens
        in a text are text, unless `parse_special`."""
        return self.preparer.encode(prompt, parse_special=parse_special)

    def grammar(
        self,
        *,
        json: Mapping[str, Any] | bool | str | None = None,
        regex: str | None = None,
        lark: str | None = None,
        choice: Sequence[str] | None = None,
        after: str | None = None,
    ) -> Constraint:
        """What an answer may say, for `RequestOptions.constraint`: a document of this JSON schema,
        what a regular expression or a grammar in Lark matches whole, or one of these texts; behind
        the text `after`, if one is given. Raises UsageError, GrammarError."""
        spec = GrammarSpec.of(json=json, regex=regex, lark=lark, choice=choice, after=after)
        return self.compile_grammar(spec)

    def compile_grammar(self, spec: GrammarSpec) -> Constraint:
        """Compile a grammar as a request's body asks for it. Raises GrammarError."""
        return self.preparer.grammars.compile(spec)

    def lend(self, requests: OpenRequests) -> None:
        """Let an AsyncEngine's requests in. Raises UsageError: one may be open at a time."""
        lent_to = None if self._lent_to is None else self._lent_to()
        if lent_to is not None and not lent_to.is_closed:
            raise UsageError(
                "this LLM has an AsyncEngine: share it, or close it before you make another"
            )
        self._lent_to = weakref.ref(requests)

    def _stream(self, request: PreparedRequest) -> Stream:
        with OutputQueue(self.loop.cancel, 1, streams=True) as outputs:
            self.loop.submit(outputs, [request])  # here: a stream nobody reads takes no place
            while outputs.num_left:
                update = outputs.get()
                if update.error is not None:
                    raise update.error
                yield from update.chunks

    def _row_values(self, tokens: Sequence[int], kind: RowValues) -> list[Any]:
        """Return what each row of a prompt gives; nothing is drawn after it."""
        request = PreparedRequest(tokens, SamplingParams(), RequestOptions(), kind)
        with OutputQueue(self.loop.cancel, 1) as outputs:
            self.loop.submit(outputs, [request])
            update = outputs.get()
            if update.error is not None:
                raise update.error
            return outputs.requests[0].row_values


def _beyond(info: ModelInfo) -> str:
    return (
        f"the context is {counted(info.context, 'token')}, and the model was trained for "
        f"{info.model_context:,}: ALiBi goes on beyond them, how well is the model's own"
    )


def _clamped(info: ModelInfo) -> str:
    budget = info.kv_blocks * info.block_bytes
    return (
        f"the context is {counted(info.context, 'token')}, not the model's {info.model_context:,}: "
        f"{budget:,} bytes of KV memory hold no more; free memory or raise kv_memory "
        "(--kv-memory), or ask for a context that fits (context=, --context)"
    )
