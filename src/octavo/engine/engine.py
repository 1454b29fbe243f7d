"""Engine: requests in, tokens out, one step at a time. Token ids only: it knows no text.

Owns the scheduler, the runner, the sampler and the block pool. One caller at a time.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from octavo.batch import Batch, StepOutput, Want
from octavo.engine.runner import Runner, make_batch
from octavo.engine.sampler import HeadWants, Sampler
from octavo.engine.scheduler import Scheduler, StepPlan
from octavo.errors import OutOfMemoryError
from octavo.kv_cache.block_pool import BlockPool
from octavo.records import StepRecord
from octavo.request import FinishReason, Metrics, Request
from octavo.sampling_params import SamplingParams

_KEPT_RECORDS = 65536


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that a step drew, and the request's end if this was its last."""

    request: Request
    token: int


class Engine:
    def __init__(
        self,
        runner: Runner,
        pool: BlockPool,
        scheduler: Scheduler,
        *,
        block_size: int,
        context: int,
        eos_ids: frozenset[int],
        default_temperature: float,
    ) -> None:
        self.records: deque[StepRecord] = deque(maxlen=_KEPT_RECORDS)
        self._runner = runner
        self._pool = pool
        self._scheduler = scheduler
        self._sampler = Sampler(runner.isa, runner.vocab_size)
        self._block_size = block_size
        self._context = context
        self._eos_ids = eos_ids
        self._default_temperature = default_temperature
        self._num_added = 0
        self._num_steps = 0

    @property
    def has_unfinished(self) -> bool:
        return self._scheduler.has_unfinished

    def add(self, prompt: Sequence[int], params: SamplingParams) -> Request:
        """Queue a prompt of at least one token, shorter than the context (the caller has
        checked)."""
        assert 0 < len(prompt) < self._context + 1
        room = self._context - len(prompt) + 1  # the last token drawn needs no place in the context
        temperature = params.temperature
        request = Request(
            id=self._num_added,
            params=params,
            prompt_token_ids=tuple(prompt),
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            # as float32, like the kernels: what is too small for it is greedy
            temperature=float(
                np.float32(self._default_temperature if temperature is None else temperature)
            ),
            max_tokens=min(room, room if params.max_tokens is None else params.max_tokens),
        )
        self._scheduler.add(request)
        self._num_added += 1
        request.times.added = time.monotonic()
        return request

    def step(self) -> list[NewToken]:
        """Run one step: the tokens drawn, in the order of their requests. Ends requests that are
        done."""
        begin = time.monotonic()
        plan = self._scheduler.schedule()
        sampled = [s.request for s in plan.sampled]
        wants = self._sampler.wants(sampled)
        batch = self._batch(plan, wants)
        forward_begin = time.monotonic()
        out = self._runner.forward(batch)
        forward_seconds = time.monotonic() - forward_begin
        tokens = self._sampler.sample(sampled, wants, out)
        self._scheduler.update(plan, {r.id: t for r, t in zip(sampled, tokens, strict=True)})
        now = time.monotonic()
        self._record(batch, out, now - begin, forward_seconds)
        for item in plan.scheduled:
            item.request.peak_blocks = max(item.request.peak_blocks, len(item.blocks))
        for request, token in zip(sampled, tokens, strict=True):
            self._note_token(request, token, now)
        return [NewToken(r, t) for r, t in zip(sampled, tokens, strict=True)]

    def finish(self, request: Request, reason: FinishReason) -> None:
        """End a request early: a stop string was found, or nobody waits for it."""
        if request.finish_reason is None:
            self._scheduler.finish(request, reason)

    def metrics(self, request: Request) -> Metrics:
        """Of a finished request."""
        first, last = request.times.first_token, request.times.last_token
        more = request.num_completion_tokens - 1
        ttft = None if first is None else first - request.times.added
        decode = last - first if more > 0 and first is not None and last is not None else None
        return Metrics(
            ttft_ms=None if ttft is None else ttft * 1e3,
            tpot_ms=None if decode is None else decode * 1e3 / more,
            prefill_tps=request.num_prompt_tokens / ttft if ttft else None,
            decode_tps=more / decode if decode else None,
            kv_bytes=request.peak_blocks * self._runner.block_bytes,
        )

    def all_rows(
        self, tokens: Sequence[int], want: Want, rows_of_step: int
    ) -> Iterator[StepOutput]:
        """Run a whole prompt outside the scheduler, every row an output; one StepOutput a step."""
        blocks = self._pool.allocate(-(-len(tokens) // self._block_size))
        if blocks is None:
            raise OutOfMemoryError(
                f"{len(tokens)} tokens need more KV blocks than the {self._pool.num_free} free: "
                "raise kv_memory"
            )
        try:
            for begin in range(0, len(tokens), rows_of_step):
                span = tokens[begin : begin + rows_of_step]
                groups = len(self._runner.layouts)
                wants = [want] * len(span)
                batch = make_batch([(span, begin)], [blocks], groups, range(len(span)), wants)
                yield self._runner.forward(batch)
        finally:
            self._pool.free(reversed(blocks))

    @property
    def num_held_blocks(self) -> int:
        return self._pool.num_held

    def check_integrity(self) -> None:
        """The pool is whole; without running requests nothing is held."""
        self._pool.check_integrity()
        assert self._scheduler.num_running > 0 or self._pool.num_held == 0

    def _batch(self, plan: StepPlan, wants: HeadWants) -> Batch:
        ends = accumulate(s.end - s.begin for s in plan.scheduled)
        edit_starts, edits = wants.ragged_edits()
        return make_batch(
            [(s.request.tokens[s.begin : s.end], s.begin) for s in plan.scheduled],
            [s.blocks for s in plan.scheduled],
            len(self._runner.layouts),
            [end - 1 for s, end in zip(plan.scheduled, ends, strict=True) if s.samples],
            wants.wants,
            edit_starts=edit_starts,
            edits=edits,
        )

    def _record(self, batch: Batch, out: StepOutput, seconds: float, forward: float) -> None:
        """Count what ran: the rows of the batch, and the tokens before each sequence's first
        row."""
        by_class: dict[str, int] = {}
        for name, ns in zip(self._runner.op_names, out.op_ns, strict=False):
            by_class[name] = by_class.get(name, 0) + int(ns)
        self.records.append(
            StepRecord(
                step=self._num_steps,
                num_requests=len(batch.row_starts) - 1,
                computed_tokens=len(batch.tokens),
                cached_tokens=int(batch.positions[batch.row_starts[:-1]].sum()),
                output_rows=len(batch.output_rows),
                seconds=seconds,
                forward_seconds=forward,
                kv_blocks_used=self._pool.num_held,
                kv_blocks_total=self._pool.num_blocks,
                op_ns=tuple(by_class.items()),
            )
        )
        self._num_steps += 1

    def _note_token(self, request: Request, token: int, now: float) -> None:
        times = request.times
        times.first_token = now if times.first_token is None else times.first_token
        times.last_token = now
        ends = token in request.params.stop_token_ids
        if ends or (token in self._eos_ids and not request.params.ignore_eos):
            self._scheduler.finish(request, "stop")
        elif request.num_completion_tokens >= request.max_tokens:
            self._scheduler.finish(request, "length")
