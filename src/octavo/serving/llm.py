"""LLM: the offline API. Text in, answers out; has a loaded model and its engine.

Not a server: calls run in the caller's thread, which steps the engine at its desk; calls of several
threads take turns step by step. Only `logits` and `score` keep it for themselves until they end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np

from octavo.batch import FloatArray, Want
from octavo.config import EngineConfig, EngineOptions
from octavo.engine.runner import log_probs
from octavo.errors import PromptTooLongError, UsageError, counted
from octavo.loaded_model import ModelInfo, load_model
from octavo.options import takes
from octavo.records import StepRecord
from octavo.request import RequestOptions, RequestOutput, StreamChunk
from octavo.sampling_params import SamplingParams
from octavo.serving.answer import Answer
from octavo.serving.answer_desk import AnswerDesk, Ask
from octavo.tokenizer import TooManyTokensError
from octavo.values import is_list, is_whole

Prompt = str | Sequence[int]
Stream = Generator[StreamChunk, None, None]
Messages = Sequence[Mapping[str, Any]]
T = TypeVar("T")

_PROMPT = "a prompt is a string or a list of token ids"
_LOGITS_LIMIT = 2 << 30  # bytes that llm.logits may return
_ROWS_OF_STEP = 128  # rows of a step whose every row gives logits: 25 MB at a vocabulary of 49k

logger = logging.getLogger(__name__)


class LLM:
    """A loaded model, which answers prompts."""

    @takes(EngineConfig)
    def __init__(self, model: str | Path, **options: Unpack[EngineOptions]) -> None:
        """`model` is a library name or a GGUF file. Raises UsageError, ModelError,
        OutOfMemoryError. The options, checked by range:"""
        self.config = EngineConfig(**options)  # type: ignore[arg-type]  # it reads sizes in text
        loaded = load_model(model, self.config)
        self.info = loaded.info
        self.model_config = loaded.model_config
        self.program = loaded.program
        self.tokenizer = loaded.tokenizer
        self._runner = loaded.runner
        self._engine = loaded.engine
        self.desk = AnswerDesk(loaded.engine, loaded.tokenizer)  # which an AsyncEngine shares
        if self.config.context is None and self.info.context < self.info.model_context:
            logger.warning("%s", _clamped(self.info))

    @property
    def records(self) -> list[StepRecord]:
        """The steps so far, oldest first; a bounded number of them."""
        return list(self._engine.records)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        options: RequestOptions | Sequence[RequestOptions] | None = None,
    ) -> list[RequestOutput]:
        """Complete each prompt; all run in one batch. One SamplingParams for all, or one each."""
        outputs: dict[int, RequestOutput] = {}
        for answer, index in self._run(prompts, params, options):
            if answer.request.error is not None:
                raise answer.request.error
            outputs[index] = self.desk.output(answer)
        return [outputs[i] for i in range(len(outputs))]

    def as_completed(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        options: RequestOptions | Sequence[RequestOptions] | None = None,
    ) -> Iterator[tuple[int, RequestOutput]]:
        """`generate`, giving (index of the prompt, output) as each is done. One that failed has
        finish_reason "error"."""
        for answer, index in self._run(prompts, params, options):
            yield index, self.desk.output(answer)

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
        return self.generate([tokens], params, _of_a_turn(options))[0]

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> Stream:
        """Complete a prompt, piece by piece; the last chunk has the whole output. Closing it early
        aborts."""
        return self._stream(self.prepare_stream(prompt, params, options))

    def chat_stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> Stream:
        """`chat`, piece by piece."""
        tokens = self.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )
        return self.stream(tokens, params, _of_a_turn(options))

    def encode_chat(
        self,
        messages: Messages,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> list[int]:
        """The token ids of a conversation, up to where the answer begins."""
        if chat_template is None and self.tokenizer.spec.chat_template is None:
            raise UsageError(
                f"{self.info.path.name} has no chat template: give one with --chat-template "
                "(chat_template=), or send a plain prompt"
            )
        encode = partial(
            self.tokenizer.encode_chat,
            messages,
            chat_template=chat_template,
            parse_special=parse_special,
        )
        return self._encode(encode)

    def logits(self, token_ids: Sequence[int]) -> FloatArray:
        """The model's logits after every token, (len, vocab) float32, through the cache's pages."""
        tokens = self._check_ids("logits", token_ids)
        size = len(tokens) * self.program.vocab_size * 4
        if size > _LOGITS_LIMIT:
            most = _LOGITS_LIMIT // (self.program.vocab_size * 4)
            raise UsageError(
                f"logits of {len(tokens):,} tokens take {size:,} bytes: at most {most:,} tokens at "
                "once; llm.score needs far less"
            )
        rows = min(_ROWS_OF_STEP, self._runner.max_rows)

        def run() -> FloatArray:
            with closing(self._engine.all_rows(tokens, Want.LOGITS, rows)) as steps:
                return np.concatenate([step.logits for step in steps])

        return self.desk.alone(run)

    def score(self, token_ids: Sequence[int]) -> FloatArray:
        """log p(token | all before) of every token but the first, (len - 1,) float32."""
        tokens = self._check_ids("score", token_ids)
        rows = min(_ROWS_OF_STEP, self._runner.max_rows)
        scores = [np.zeros(0, np.float32)]

        def run() -> None:
            with closing(self._engine.all_rows(tokens, Want.LOGITS, rows)) as steps:
                for begin, out in zip(range(0, len(tokens), rows), steps, strict=True):
                    following = np.asarray(tokens[begin + 1 :][: len(out.logits)], np.int32)
                    logits, lse = out.logits[: len(following)], out.log_sum_exp[: len(following)]
                    scores.append(log_probs(logits, lse, following))

        self.desk.alone(run)
        return np.concatenate(scores)

    def stats(self) -> dict[str, object]:
        """Counts over the kept step records, and the pool as it is."""
        self.desk.abandon(())
        records = self.records
        steps = sorted(r.seconds for r in records)
        slots = sum(r.kv_blocks_used for r in records) * self.config.block_size
        return {
            "steps": len(records),
            "computed_tokens": sum(r.computed_tokens for r in records),
            "kv_read_tokens": sum(r.kv_read_tokens for r in records),
            "preempted": sum(r.num_preempted for r in records),
            "step_seconds": sum(steps),
            "step_seconds_p95": steps[int(len(steps) * 0.95)] if steps else None,
            "forward_seconds": sum(r.forward_seconds for r in records),
            **self._engine.counts(),
            "kv_waste": sum(r.kv_slots_unfilled for r in records) / slots if slots else 0.0,
            "kv_block_bytes": self.info.block_bytes,
            "weight_bytes": self.info.weight_bytes,
            "context": self.info.context,
        }

    def encode(self, prompt: Prompt, *, parse_special: bool = False) -> list[int]:
        """The token ids of a prompt, checked against the vocabulary and the context. Special tokens
        in a text are text, unless `parse_special`."""
        if isinstance(prompt, str):
            encode = partial(self.tokenizer.encode, prompt, parse_special=parse_special)
            return self._check_tokens(self._encode(encode))
        return self._check_tokens(prompt)

    def prepare(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> Ask:
        """What the desk takes: a prompt and its parameters, checked."""
        (checked,) = _one_each("params", params, SamplingParams, 1)
        (opts,) = _one_each("options", options, RequestOptions, 1)
        unknown = [t for t in checked.stop_token_ids if t >= self.program.vocab_size]
        if unknown:
            most = self.program.vocab_size - 1
            raise UsageError(f"stop_token_ids has {unknown[0]}: expected 0 to {most}")
        return Ask(self.encode(prompt), checked.filled(self.info.sampling), opts)

    def prepare_stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
    ) -> Ask:
        """`prepare` for an answer that is given in pieces."""
        ask = self.prepare(prompt, params, options)
        if ask.params.beam_width:
            raise UsageError("beam_width: beams cannot be streamed; use generate")
        return ask

    def _check_ids(self, method: str, token_ids: Sequence[int]) -> list[int]:
        if not _is_list(token_ids):
            raise UsageError(
                f"{method} takes a list of token ids, found {type(token_ids).__name__}: "
                "encode(text) gives the ids of a text"
            )
        return self._check_tokens(token_ids)

    def _check_tokens(self, tokens: Sequence[int]) -> list[int]:
        """Plain ints of the vocabulary, at least one, at most the context."""
        if not _is_list(tokens):
            raise UsageError(f"{_PROMPT}, found {type(tokens).__name__}")
        if len(tokens) > self.info.context:
            raise self._too_long(f"{len(tokens):,}")
        vocab = self.program.vocab_size
        wrong = [t for t in tokens if not (_is_id(t) and 0 <= t < vocab)]
        if wrong:
            raise UsageError(
                f"token id {wrong[0]!r}: expected a whole number from 0 to {vocab - 1}"
            )
        checked = [int(t) for t in tokens]
        if not checked:
            raise UsageError("the prompt is empty: give at least one token")
        return checked

    def _encode(self, encode: Callable[..., list[int]]) -> list[int]:
        """What is much too long is refused before all of it is encoded."""
        try:
            return encode(limit=self.info.context)
        except TooManyTokensError as error:
            raise self._too_long(f"at least {error.count:,}") from None

    def _too_long(self, count: str) -> PromptTooLongError:
        return PromptTooLongError(
            f"the prompt has {count} tokens, the context holds {self.info.context:,}: "
            f"{_room_for_more(self.config, self.info)}"
        )

    def _run(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
        options: RequestOptions | Sequence[RequestOptions] | None,
    ) -> Iterator[tuple[Answer, int]]:
        """Each answer as it is done, and the index of its prompt."""
        given = _as_prompts(prompts)
        each = _one_each("params", params, SamplingParams, len(given))
        opts = _one_each("options", options, RequestOptions, len(given))
        asks = [self.prepare(*ask) for ask in zip(given, each, opts, strict=True)]
        answers: list[Answer] = []
        try:
            self.desk.add(asks, answers)
            open_answers = dict(enumerate(answers))
            while open_answers:
                self.desk.step()
                for index in [i for i, a in open_answers.items() if a.done]:
                    yield open_answers.pop(index), index
        finally:
            self.desk.abandon(answers)

    def _stream(self, ask: Ask) -> Stream:
        answers: list[Answer] = []
        try:
            self.desk.add([ask], answers)  # here: a stream nobody reads takes no place
            (answer,) = answers
            while not answer.done:
                chunks = answer.take()  # steps that others asked for have come this far
                if chunks:
                    yield from chunks
                else:
                    self.desk.step()
            if answer.request.error is not None:
                raise answer.request.error
            *chunks, last = answer.take() or [StreamChunk("", ())]
            yield from chunks
            yield replace(last, output=self.desk.output(answer))
        finally:
            self.desk.abandon(answers)


def _room_for_more(config: EngineConfig, info: ModelInfo) -> str:
    """What to do about a prompt that is too long."""
    if info.context == info.model_context:
        return "shorten it, the model was trained for no more"
    if config.context is None:
        return "shorten it or raise kv_memory, which bounds the context"
    return "shorten it or load with a larger context"


def _clamped(info: ModelInfo) -> str:
    budget = info.kv_blocks * info.block_bytes
    return (
        f"the context is {counted(info.context, 'token')}, not the model's {info.model_context:,}: "
        f"{budget:,} bytes of KV memory hold no more; free memory or raise kv_memory "
        "(--kv-memory), or ask for a context that fits (context=, --context)"
    )


def _of_a_turn(options: RequestOptions | None) -> RequestOptions:
    (checked,) = _one_each("options", options, RequestOptions, 1)
    return replace(checked, begins_turn=True)


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A single prompt is a string or a list of ids; anything else is a list of prompts."""
    if isinstance(prompts, str):
        return [prompts]
    if not _is_list(prompts):
        raise UsageError(f"{_PROMPT}, or a list of those, found {type(prompts).__name__}")
    if len(prompts) and not any(isinstance(p, str) or _is_list(p) for p in prompts):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _one_each(what: str, given: Any, kind: type[T], count: int) -> list[T]:
    """One of `kind` for all (None: the default), or a list of one each."""
    if given is None or isinstance(given, kind):
        return [kind() if given is None else given] * count
    for each in given if _is_list(given) else (given,):
        if not isinstance(each, kind):
            raise UsageError(f"{what}: expected {kind.__name__}, found {type(each).__name__}")
    if len(given) != count:
        raise UsageError(
            f"{len(given):,} {what} for {counted(count, 'prompt')}: give one, or one each"
        )
    return list(given)


def _is_list(value: object) -> bool:
    return value.ndim > 0 if isinstance(value, np.ndarray) else is_list(value)


def _is_id(value: object) -> bool:
    return isinstance(value, np.integer) or is_whole(value)
