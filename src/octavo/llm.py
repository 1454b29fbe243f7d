"""LLM: the offline API. Text in, answers out; has an engine, a tokenizer and the packed weights.

Not a server: calls run in the caller's thread, and calls of several threads take turns step by
step.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octavo.batch import FloatArray, Want
from octavo.config import EngineConfig, home
from octavo.engine.engine import Engine
from octavo.engine.memory import plan_memory
from octavo.engine.runner import Runner, log_probs
from octavo.engine.scheduler import Scheduler
from octavo.engine.stop_strings import StopStrings
from octavo.errors import PromptTooLongError, UsageError
from octavo.kernels import native
from octavo.kv_cache.block_pool import BlockPool
from octavo.model.registry import build_program
from octavo.records import CacheReason, CacheRecord, StepRecord
from octavo.request import Completion, Request, RequestOutput, StreamChunk, Usage
from octavo.sampling_params import SamplingParams
from octavo.tokenizer import Detokenizer, Tokenizer
from octavo.weights import library
from octavo.weights.gguf_model import load_weights
from octavo.weights.model_header import read_header

Prompt = str | Sequence[int]
Stream = Generator[StreamChunk, None, None]
Messages = Sequence[Mapping[str, Any]]

_PROMPT = "a prompt is a string or a list of token ids"
_LOGITS_LIMIT = 2 << 30  # bytes that llm.logits may return
_ROWS_OF_STEP = 128  # rows of a step whose every row gives logits: 25 MB at a vocabulary of 49k


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded. Bytes as they are in memory."""

    path: Path
    weight_bytes: int
    tensor_types: Mapping[str, tuple[int, int]]  # of the file: name -> (tensors, bytes)
    context: int
    kv_blocks: int
    block_bytes: int
    threads: int
    isa: str


class LLM:
    def __init__(self, model: str | Path, **options: object) -> None:
        """`model`: a library name or a GGUF file. Options, all checked by name and range:

        context        longest sequence in tokens; by default the model's, or what kv_memory holds
        kv_dtype       "bf16" (default) or "f32"; "k=f32,v=bf16" apart
        kv_memory      budget of the KV pages: bytes, or "512M", "4GiB"; by default half of the free
        threads        by default the physical cores that affinity and cgroup allow
        kv_cache       False computes the whole sequence again for every token
        block_size     tokens of a KV block: 16, 32 (default) or 64
        weights        "bf16" or "f32" unpacks them; by default they stay as the file has them
        activations    rows that meet integer weights: "int8" (default), or "bf16": exact to 16 bits
        max_num_seqs, max_batch_tokens   requests, and rows of a step
        fuse, profile  False runs the op list unfused; True counts nanoseconds by op in the records

        Raises UsageError, ModelError, OutOfMemoryError.
        """
        self.config = config = EngineConfig.parse(options)
        header = read_header(library.find(model, home=home()))
        self.model_config = header.config
        self.program = build_program(header.config)
        self.tokenizer = Tokenizer.from_spec(
            header.tokenizer_spec(), cache_dir=home() / "tokenizers"
        )
        plan = plan_memory(config, self.program, header.config.context)
        threads = config.threads or native.usable_cpus()
        self._pool = native.ThreadPool(threads)
        specs = self.program.weights()
        weights = load_weights(header, specs, self._pool, expand=config.weights)
        # Without a cache a whole sequence is computed in one step.
        max_rows = (
            config.max_batch_tokens
            if config.kv_cache
            else max(plan.context, config.max_batch_tokens)
        )
        self._runner = Runner(
            self.program, weights, config,
            pool=self._pool, context=plan.context, num_blocks=plan.num_blocks, max_rows=max_rows,
        )  # fmt: skip
        blocks = BlockPool(plan.num_blocks)
        scheduler = Scheduler(
            blocks,
            block_size=config.block_size,
            max_batch_tokens=max_rows,
            max_num_seqs=config.max_num_seqs,
            keep_computed=config.kv_cache,
        )
        self._engine = Engine(
            self._runner, blocks, scheduler,
            block_size=config.block_size, context=plan.context,
            eos_ids=self.tokenizer.eos_ids, default_temperature=header.temperature,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._answers: dict[int, _Answer] = {}
        self._abandoned: deque[_Answer] = deque()
        self.info = ModelInfo(
            path=header.path,
            weight_bytes=weights.nbytes(),
            tensor_types=header.tensor_types(),
            context=plan.context,
            kv_blocks=plan.num_blocks,
            block_bytes=self._runner.block_bytes,
            threads=threads,
            isa=self._runner.isa,
        )

    @property
    def records(self) -> list[StepRecord]:
        """The steps so far, oldest first; a bounded number of them."""
        return list(self._engine.records)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Complete each prompt; all run in one batch. One SamplingParams for all, or one each."""
        listed = _as_prompts(prompts)
        each = _as_params(params, len(listed))
        encoded = [self._encode(p) for p in listed]
        answers: list[_Answer] = []
        try:
            for tokens, one in zip(encoded, each, strict=True):
                answers.append(self._add(tokens, one))
            while not all(a.done for a in answers):
                self._step()
            return [self._output(a) for a in answers]
        finally:
            self._abandon(answers)

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> RequestOutput:
        """Answer a conversation: messages with `role` and `content`, in the model's template or
        this one. Special tokens count in the template only, unless `parse_special`."""
        tokens = self.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )
        return self.generate([tokens], params)[0]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Stream:
        """Complete a prompt, piece by piece; the last chunk has the whole output. Closing it early
        aborts."""
        (checked,) = _as_params(params, 1)
        return self._stream(self._encode(prompt), checked)

    def chat_stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        chat_template: str | None = None,
        parse_special: bool = False,
    ) -> Stream:
        """`chat`, piece by piece."""
        tokens = self.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )
        return self.stream(tokens, params)

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
        return self.tokenizer.encode_chat(
            messages, chat_template=chat_template, parse_special=parse_special
        )

    def logits(self, token_ids: Sequence[int]) -> FloatArray:
        """The model's logits after every token, (len, vocab) float32, through the cache's pages."""
        tokens = self._check_tokens(token_ids)
        size = len(tokens) * self.program.vocab_size * 4
        if size > _LOGITS_LIMIT:
            most = _LOGITS_LIMIT // (self.program.vocab_size * 4)
            raise UsageError(
                f"logits of {len(tokens)} tokens take {size} bytes: at most {most} tokens at once; "
                "llm.score needs far less"
            )
        with self._lock:
            self._end_abandoned()
            rows = min(_ROWS_OF_STEP, self._runner.max_rows)
            return np.concatenate(
                [s.logits for s in self._engine.all_rows(tokens, Want.LOGITS, rows)]
            )

    def score(self, token_ids: Sequence[int]) -> FloatArray:
        """log p(token | all before) of every token but the first, (len - 1,) float32."""
        tokens = self._check_tokens(token_ids)
        rows = min(_ROWS_OF_STEP, self._runner.max_rows)
        scores = [np.zeros(0, np.float32)]
        with self._lock:
            self._end_abandoned()
            steps = self._engine.all_rows(tokens, Want.LOGITS, rows)
            for begin, out in zip(range(0, len(tokens), rows), steps, strict=True):
                following = np.asarray(tokens[begin + 1 : begin + 1 + len(out.logits)], np.int32)
                logits, lse = out.logits[: len(following)], out.log_sum_exp[: len(following)]
                scores.append(log_probs(logits, lse, following))
        return np.concatenate(scores)

    def stats(self) -> dict[str, object]:
        """Counts over the kept step records, and the pool as it is."""
        self._abandon(())
        records = self.records
        return {
            "steps": len(records),
            "computed_tokens": sum(r.computed_tokens for r in records),
            "cached_tokens": sum(r.cached_tokens for r in records),
            "step_seconds": sum(r.seconds for r in records),
            "forward_seconds": sum(r.forward_seconds for r in records),
            "kv_blocks_total": self.info.kv_blocks,
            "kv_blocks_used": self._engine.num_held_blocks,
            "kv_block_bytes": self.info.block_bytes,
            "weight_bytes": self.info.weight_bytes,
            "context": self.info.context,
        }

    def _encode(self, prompt: Prompt) -> list[int]:
        return self._check_tokens(
            self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        )

    def _check_tokens(self, tokens: Sequence[int]) -> list[int]:
        """Plain ints of the vocabulary, at least one, at most the context."""
        if not _is_list(tokens):
            raise UsageError(f"{_PROMPT}, found {type(tokens).__name__}")
        vocab = self.program.vocab_size
        wrong = [t for t in tokens if not (_is_id(t) and 0 <= t < vocab)]
        if wrong:
            raise UsageError(
                f"token id {wrong[0]!r}: expected a whole number from 0 to {vocab - 1}"
            )
        checked = [int(t) for t in tokens]
        if not checked:
            raise UsageError("the prompt is empty: give at least one token")
        if len(checked) > self.info.context:
            raise PromptTooLongError(
                f"the prompt has {len(checked)} tokens, the context holds {self.info.context}: "
                "shorten it or load with a larger context"
            )
        return checked

    def _add(self, tokens: list[int], params: SamplingParams) -> _Answer:
        unknown = [t for t in params.stop_token_ids if t >= self.program.vocab_size]
        if unknown:
            most = self.program.vocab_size - 1
            raise UsageError(f"stop_token_ids has {unknown[0]}: expected 0 to {most}")
        with self._lock:
            request = self._engine.add(tokens, params)
            answer = _Answer(request, self.tokenizer)
            self._answers[request.id] = answer
        return answer

    def _step(self) -> None:
        """One step of whatever runs; hands its tokens to the answers they belong to."""
        with self._lock:
            self._end_abandoned()
            if not self._engine.has_unfinished:
                return
            for new in self._engine.step():
                answer = self._answers[new.request.id]
                answer.push(new.token)
                if answer.stops.found is not None:
                    self._engine.finish(new.request, "stop")
                    new.request.finish_reason = "stop"  # even if this was the last of max_tokens
                if new.request.finish_reason is not None:
                    answer.finish()

    def _stream(self, tokens: list[int], params: SamplingParams) -> Stream:
        answer = self._add(tokens, params)  # here, so that a stream nobody reads takes no place
        try:
            while not answer.done:
                self._step()
                if answer.fresh_tokens and answer.request.finish_reason is None:
                    yield StreamChunk(*answer.take())
            yield StreamChunk(*answer.take(), self._output(answer))
        finally:
            self._abandon([answer])

    def _abandon(self, answers: Sequence[_Answer]) -> None:
        """End what nobody waits for. Never waits for the lock: the garbage collector may close a
        stream inside a step of the same thread, and then the next step ends it."""
        self._abandoned.extend(answers)
        if self._lock.acquire(blocking=False):
            try:
                self._end_abandoned()
            finally:
                self._lock.release()

    def _end_abandoned(self) -> None:
        """Needs the lock."""
        while self._abandoned:
            answer = self._abandoned.popleft()
            self._engine.finish(answer.request, "abort")
            self._answers.pop(answer.request.id, None)

    def _output(self, answer: _Answer) -> RequestOutput:
        request = answer.request
        assert request.finish_reason is not None
        wanted = request.params.logprobs is not None
        completion = Completion(
            text="".join(answer.text),
            token_ids=tuple(request.completion_token_ids),
            logprobs=tuple(request.logprobs) if wanted else None,
            finish_reason=request.finish_reason,
        )
        return RequestOutput(
            prompt_token_ids=request.prompt_token_ids,
            outputs=(completion,),
            usage=Usage(request.num_prompt_tokens, request.num_completion_tokens, cached_tokens=0),
            cache=CacheRecord(reason=CacheReason.DISABLED),
            metrics=self._engine.metrics(request),
            seed=request.seed,
        )


class _Answer:
    """The text of one request as its tokens come: detokenised, cut at a stop string."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        self.stops = StopStrings(request.params.stop)
        self.text: list[str] = []
        self.done = False
        self.fresh_text: list[str] = []
        self.fresh_tokens: list[int] = []
        self._detokenizer = Detokenizer(tokenizer, continuation=True)
        # These end a text and are not part of it.
        self._unseen = tokenizer.eos_ids | frozenset(request.params.stop_token_ids)

    def push(self, token: int) -> None:
        self.fresh_tokens.append(token)
        ended = self.request.finish_reason == "stop" and token in self._unseen
        if not ended:
            self._show(self.stops.push(self._detokenizer.push(token)))

    def finish(self) -> None:
        if self.stops.found is None:
            self._show(self.stops.push(self._detokenizer.finish()))
            self._show(self.stops.finish())
        self.done = True

    def take(self) -> tuple[str, tuple[int, ...]]:
        """What came since the last call."""
        taken = "".join(self.fresh_text), tuple(self.fresh_tokens)
        self.fresh_text, self.fresh_tokens = [], []
        return taken

    def _show(self, text: str) -> None:
        if text:
            self.text.append(text)
            self.fresh_text.append(text)


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A single prompt is a string or a list of ids; anything else is a list of prompts."""
    if isinstance(prompts, str):
        return [prompts]
    if not _is_list(prompts):
        raise UsageError(f"{_PROMPT}, or a list of those, found {type(prompts).__name__}")
    if len(prompts) and not any(isinstance(p, str) or _is_list(p) for p in prompts):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _as_params(
    params: SamplingParams | Sequence[SamplingParams] | None, count: int
) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    for each in params if _is_list(params) else (params,):
        if not isinstance(each, SamplingParams):
            raise UsageError(f"params: expected SamplingParams, found {type(each).__name__}")
    if len(params) != count:
        raise UsageError(f"{len(params)} SamplingParams for {count} prompts: give one, or one each")
    return list(params)


def _is_list(value: object) -> bool:
    """Bytes are a sequence of ints, and no prompt."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_id(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
