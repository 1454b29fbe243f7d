"""WatchedEngine: a real engine over a tiny model, with everything that it does held against the
plain pool and against each request alone.

Every block is filled with NaN when it is allocated, so that a slot nobody wrote shows up at once.
What happened is counted in `seen`. Faults can be put into it; it knows whom each may end.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, takewhile
from typing import Any

import numpy as np

from octavo.batch import Batch, StepOutput, Want
from octavo.engine.engine import StepResult
from octavo.engine.scheduler import StepPlan
from octavo.errors import ModelError, OutOfMemoryError, UsageError
from octavo.kernels import native
from octavo.kv_cache.block_pool import BlockId
from octavo.kv_cache.manager import BlockTable
from octavo.kv_cache.prefix_index import Node
from octavo.request import FinishReason, Request, RequestOptions
from octavo.request import Sequence as Seq
from octavo.sampling_params import SamplingParams
from tests.engine.tiny_engine import NAMESPACE, tiny_engine
from tests.exactness.alone import NAN, Alone, Row
from tests.exactness.plain_pool import watch
from tests.tiny import TinyModel

Tokens = tuple[int, ...]
_MS_PER_STEP, _MS_PER_ROW = 3.0, 1.0  # of the engine's clock
_LIVELOCK = 4000  # steps that the requests of one example never need


class Injected(Exception):
    """A fault that the test put into a step."""


class InjectedInterrupt(KeyboardInterrupt):
    """Ctrl-C at a bad moment."""


@dataclass
class Fault:
    """Raised once, `after` so many calls of its `kind`: forward, copy, draw, pool, interrupt (in
    forward), interrupted draw; nan: in one row. culprit: raised by every step with `request`."""

    kind: str
    after: int = 0
    request: Request | None = None


class WatchedEngine:
    def __init__(
        self, model: TinyModel, pool: native.ThreadPool, alone: Alone, seen: Counter[str],
        **options: Any,
    ) -> None:  # fmt: skip
        self.now = 0.0
        self.engine = tiny_engine(
            model, pool, eos_ids=sorted(alone.eos_ids), clock=lambda: self.now, **options
        )
        self.alone = alone
        self.seen = seen
        self.kv = self.engine._kv
        self.scheduler = self.engine._scheduler
        self.runner = self.engine._runner
        self.plain = watch(self.kv.pool, lambda: self.now, self._pool_called)
        self.shares = bool(options.get("prefix_cache", True))
        self.plan = StepPlan()
        self.requests: list[Request] = []
        self.unfinished: set[Request] = set()
        self.cancelled: set[Request] = set()
        self.told: Counter[Request | Seq] = Counter()  # by steps' results
        self.cut: set[Seq] = set()  # answers that were ended one by one
        self.preempted: set[Request] = set()  # and did not grow since
        self.rows: list[tuple[Tokens, Row]] = []  # not compared yet
        self.computed: dict[Seq, Tokens] = {}  # whose K and V may be found by others
        self.computed_before = self.computed
        self.pinned: list[list[BlockId]] = []
        self.fault: Fault | None = None
        self.exposed = False  # to faults
        self.booking: Request | None = None
        self.may_fail: set[Request] = set()
        self._hook()

    # What a user does.

    def add(self, prompt: Tokens, params: SamplingParams, options: RequestOptions) -> None:
        try:
            request = self.engine.add(prompt, params, options)
        except (OutOfMemoryError, UsageError) as error:
            self.seen[f"refused: {type(error).__name__}"] += 1
        else:
            self.requests.append(request)
            self.unfinished.add(request)
        self.check()

    def step(self) -> None:
        self.seen["step"] += 1
        before = {
            r: _Before(r.cache is not None, r.num_preemptions, self._where(r))
            for r in self.unfinished
        }
        self.computed_before = dict(self.computed)
        result = StepResult()
        with self._exposed():
            result = self.engine.step()
        self._count_step(before, result)
        self.check()

    def drain(self) -> None:
        """Step until every request has ended."""
        self.fault = None
        for _ in range(_LIVELOCK):
            if not self.engine.has_unfinished:
                break
            self.step()
        assert not self.engine.has_unfinished, "livelock"
        self.step()  # tells what the last one did, if that raised
        self._check_told()
        for blocks in self.pinned:
            self.kv.unpin(blocks)
        self.check()
        assert self.kv.pool.num_held == 0
        self.seen["evicted"] += self.kv.pool.num_evicted
        self.compare_rows()

    def cancel(self, request: Request) -> None:
        self.seen[f"cancel {self._where(request)}"] += 1
        self.cancelled.add(request)
        with self._exposed():
            self.engine.finish(request, "abort")
        self.check()

    def cancel_sequence(self, sequence: Seq) -> None:
        """As for a stop string that was found in its text."""
        self.seen["end of one answer"] += 1
        self.cut.add(sequence)
        with self._exposed():
            self.engine.finish_sequence(sequence, "stop")
        self.check()

    def wait(self, ms: float) -> None:
        self.now += ms / 1e3

    def reclaim(self) -> None:
        evicted = self.kv.pool.num_evicted
        with self._exposed():
            self.engine.reclaim()
        self.seen["reclaim of kept blocks"] += self.kv.pool.num_evicted > evicted
        self.check()

    def all_rows(self, tokens: Tokens, rows_of_step: int, most: int) -> None:
        """Every row of a prompt; given up after `most` steps."""
        found: list[Row] = []
        rows = self.engine.all_rows(tokens, Want.LOGITS, rows_of_step)
        with self._exposed(), closing(rows):
            try:
                for out in islice(rows, most):
                    found += map(Row, out.logits, out.log_sum_exp.tolist())
            except OutOfMemoryError:
                self.seen["all_rows without room"] += 1
        self.seen["all_rows"] += len(found) == len(tokens)
        self.seen["all_rows given up"] += 0 < len(found) < len(tokens)
        assert found == [self.alone.row(tokens[: i + 1]) for i in range(len(found))]
        self.check()

    def pin(self, request: Request) -> None:
        root = self.kv.index.root(replace(NAMESPACE, salt=request.options.cache_salt))
        blocks = self.kv.pin(root, request.prompt_token_ids)
        if blocks:
            self.pinned.append(blocks)
        self.seen["pin refused" if blocks is None else "pin" if blocks else "pin of none"] += 1
        self.check()

    def unpin(self, pick: int) -> None:
        self.seen["unpin"] += 1
        self.kv.unpin(self.pinned.pop(pick % len(self.pinned)))
        self.check()

    # What must hold.

    def check(self) -> None:
        self.engine.check_integrity()
        self.plain.check()
        for request in [r for r in self.unfinished if r.finished]:
            self.unfinished.remove(request)
            self.compare(request)
        if len(self.rows) > 300:
            self.compare_rows()

    def compare_rows(self) -> None:
        """Every row that a token was drawn from is that of its sequence computed whole."""
        for tokens, row in sorted(self.rows, key=lambda each: -len(each[0])):
            assert row == self.alone.row(tokens), f"other logits after {len(tokens)} tokens"
        self.rows.clear()

    def compare(self, request: Request) -> None:
        """A request that ended gave what it gives alone, up to where it was ended."""
        self.compare_rows()
        for reason in {s.finish_reason for s in request.sequences}:
            self.seen[f"ended: {reason}"] += 1
        if any(s.finish_reason == "error" for s in request.sequences):
            assert isinstance(request.error, (Injected, ModelError)), repr(request.error)
            assert request in self.may_fail, "".join(traceback.format_exception(request.error))
        if request.params.beam_width:
            self._compare_beams(request)
            return
        for sequence in request.sequences:
            alone = self.alone.answer(request, sequence.index, sequence.num_completion_tokens)
            assert sequence.tokens == alone.tokens
            count = len(sequence.logprobs) if request in self.may_fail else None
            assert sequence.logprobs == alone.logprobs[:count]
            ends = self._may_end_by(request) | ({"stop"} if sequence in self.cut else set())
            assert sequence.finish_reason in ({alone.finish_reason} - {None} or ends)
        if not self._may_end_by(request):
            assert sorted(s.index for s in request.sequences) == list(range(request.params.n))
        wanted = request.params.prompt_logprobs is not None
        if wanted and not request.needs_all_rows:
            assert request.prompt_logprobs == self.alone.prompt_logprobs(request)
        assert not request.needs_all_rows or self._may_end_by(request)

    def _compare_beams(self, request: Request) -> None:
        if request in self.may_fail:
            return
        found = [
            (tuple(s.tokens), s.cumulative_logprob, s.finish_reason) for s in request.sequences
        ]
        alone = []
        for reason in (None, *sorted(self._may_end_by(request))):
            best, parents = self.alone.beams(request, len(request.beam_parents), reason)
            answers = [
                (request.prompt_token_ids + h.tokens, h.logprob, h.finish_reason) for h in best
            ]
            alone.append((answers, parents))
        assert (found, request.beam_parents) in alone

    def _check_told(self) -> None:
        """Every token, and every end that was not asked for, was in the result of one step."""
        for request in self.requests:
            if request not in self.cancelled and self.cut.isdisjoint(request.sequences):
                assert self.told[request] == 1
            for sequence in () if request.params.beam_width else request.sequences:
                assert self.told[sequence] == sequence.num_completion_tokens

    def _may_end_by(self, request: Request) -> set[FinishReason]:
        """Why it may have ended before its time."""
        ends: set[FinishReason] = {"abort"} if request in self.cancelled else set()
        if request.deadline is not None and self.now >= request.deadline:
            ends.add("deadline")
        return ends | ({"error", "abort"} if request in self.may_fail else set())

    # What is counted.

    def _count_step(self, before: Mapping[Request, _Before], result: StepResult) -> None:
        seen, grown = self.seen, result.grown
        self.told.update([*grown, *result.finished])
        seen["waited for a leader"] += bool(self.scheduler._waits)
        for sequence in grown:
            if sequence.request in self.preempted:
                self.preempted.remove(sequence.request)
                seen["resume"] += 1
        for request, then in before.items():
            live = sum(s.finish_reason is None for s in request.sequences)
            if request.num_preemptions > then.num_preemptions:
                self.preempted.add(request)
                kind = "beams" if request.params.beam_width else "answers"
                seen[f"preempt of {kind}" if live > 1 else "preempt"] += 1
            if request.cache is not None and not then.begun:
                self._count_hit(request)
            if any(s.finish_reason == "deadline" for s in request.sequences):
                seen[f"deadline {then.where}"] += 1

    def _count_hit(self, request: Request) -> None:
        """Counts what was found of a prompt; no more than its own tenant's requests had."""
        cache, prompt = request.cache, request.prompt_token_ids
        assert cache is not None
        matched = cache.matched_tokens
        self.seen["admit"] += 1
        self.seen[f"reason: {cache.reason}"] += 1
        if matched:
            whole = matched == len(prompt) - 1
            part = matched % self.kv.block_size
            kind = "full" if whole else "partial" if part else "of whole blocks"
            self.seen[f"hit, {kind}"] += 1
        mates = [
            tokens
            for sequence, tokens in self.computed_before.items()
            if self.shares and sequence.request.options.cache_salt == request.options.cache_salt
        ]
        assert matched <= max((_num_shared(prompt, tokens) for tokens in mates), default=0)

    def _where(self, request: Request) -> str:
        live = [s for s in request.sequences if s in self.scheduler._tables]
        if not live:
            return "after a preemption" if request.num_preemptions else "while waiting"
        return "in decode" if live[0].num_completion_tokens else "in the middle of a prefill"

    # What is put between the parts of the engine.

    def _hook(self) -> None:
        for owner, name, hook in (
            (self.scheduler, "schedule", self._schedule),
            (self.runner, "forward", self._forward),
            (self.runner, "copy_blocks", self._copy_blocks),
            (self.engine, "_book", self._book),
            (self.engine._sampler, "draw", self._draw),
            (self.kv, "reserve", self._reserve),
            (self.kv, "_take_over", self._take_over),
            (self.kv, "_register", self._register),
            (self.scheduler, "fork", self._fork),
            (self.scheduler, "drop", self._drop),
        ):
            setattr(owner, name, partial(hook, getattr(owner, name)))

    def _schedule(self, real: Callable[..., StepPlan], only: Request | None = None) -> StepPlan:
        self.seen["run of a suspect"] += only is not None
        self.plan = real(only)
        return self.plan

    def _forward(self, real: Callable[[Batch], StepOutput], batch: Batch) -> StepOutput:
        """Every output row gives its logits too, beside what it was asked for."""
        self._raise("forward", "interrupt", "culprit")
        if not self.plan.scheduled:  # all_rows
            return real(batch)
        self.now += (_MS_PER_STEP + _MS_PER_ROW * len(batch.tokens)) / 1e3
        count = len(batch.output_rows)
        starts = batch.edit_starts
        twice = replace(
            batch,
            output_rows=np.concatenate([batch.output_rows] * 2),
            wants=np.concatenate([batch.wants, np.full(count, Want.LOGITS, np.int32)]),
            edit_starts=None
            if starts is None
            else np.concatenate([starts, np.full(count, starts[-1], np.int32)]),
        )
        out = real(twice)
        self._note_rows(batch, out)
        mine = replace(
            out,
            argmax=out.argmax[:count],
            log_sum_exp=out.log_sum_exp[:count],
            top_ids=out.top_ids[:count],
            top_logits=out.top_logits[:count],
            logits=out.logits[: len(out.logits) - count],
        )
        if count and self._is_due("nan"):
            mine.log_sum_exp[0] = np.nan
            self.may_fail.add(self._owner(batch, 0)[0].request)
        return mine

    def _note_rows(self, batch: Batch, out: StepOutput) -> None:
        count = len(batch.output_rows)
        for i in range(count):
            sequence, position = self._owner(batch, i)
            row = Row(out.logits[i - count], float(out.log_sum_exp[i]))
            self.rows.append((tuple(sequence.tokens[: position + 1]), row))
        for item in self.plan.scheduled:
            self.computed[item.sequence] = tuple(item.sequence.tokens[: item.end])

    def _owner(self, batch: Batch, output: int) -> tuple[Seq, int]:
        """The sequence of an output row, and its position there."""
        row = int(batch.output_rows[output])
        item = int(np.searchsorted(batch.row_starts, row, side="right")) - 1
        return self.plan.scheduled[item].sequence, int(batch.positions[row])

    def _copy_blocks(self, real: Callable[..., None], pairs: Sequence[tuple[int, int]]) -> None:
        self.seen["copy-on-write"] += len(pairs)
        if pairs:
            self._raise("copy")
        real(pairs)

    def _book(self, real: Callable[..., None], request: Request, *rest: Any) -> None:
        self.booking = request
        real(request, *rest)
        self.booking = None

    def _draw(self, real: Callable[..., Any], *args: Any) -> Any:
        self._raise("draw", "interrupted draw")
        return real(*args)

    def _pool_called(self, name: str, result: Any) -> None:
        if self.exposed and result is None:
            self._raise("pool")
        if name == "allocate":
            for block in result or ():
                for pages in self.runner.pages:
                    pages.view(np.uint16).reshape(self.runner.num_blocks, -1)[block] = NAN

    def _reserve(self, real: Callable[..., bool], table: BlockTable, end: int) -> bool:
        at = table.num_stored // self.kv.block_size
        block = table.blocks[at] if end > table.num_stored and at < len(table.blocks) else None
        done = real(table, end)
        if done and block is not None and table.blocks[at] == block:
            self.seen["kept block went on in place"] += self.kv.pool.is_kept(block)
        self.seen["no room"] += not done
        return done

    def _take_over(self, real: Callable[..., bool], *args: Any) -> bool:
        taken = real(*args)
        self.seen["kept block taken over"] += taken
        return taken

    def _register(
        self, real: Callable[..., Node], table: BlockTable, tokens: Tokens, at: int
    ) -> Node:
        block, named = table.blocks[at], self.kv.index.node_of(table.blocks[at])
        node = real(table, tokens, at)
        self.seen["known at register"] += table.blocks[at] != block
        self.seen["partial block extended"] += named is node
        return node

    def _fork(self, real: Callable[..., Seq], sequence: Seq, index: int) -> Seq:
        self.seen["fork of beams" if sequence.request.params.beam_width else "fork of answers"] += 1
        return real(sequence, index)

    def _drop(self, real: Callable[..., None], sequence: Seq) -> None:
        self.seen["drop of a beam"] += 1
        real(sequence)

    # Faults.

    @contextmanager
    def _exposed(self) -> Iterator[None]:
        """Faults are raised in here, and go no further."""
        self.plan, self.exposed = StepPlan(), True
        try:
            yield
        except (Injected, InjectedInterrupt):
            self.seen["call raised"] += 1
        self.exposed, self.booking = False, None

    def _is_due(self, *kinds: str) -> bool:
        fault = self.fault
        if fault is None or fault.kind not in kinds:
            return False
        fault.after -= 1
        if fault.after >= 0:
            return False
        if fault.kind != "culprit":  # once
            self.fault = None
        self.seen[f"fault: {fault.kind}"] += 1
        return True

    def _raise(self, *kinds: str) -> None:
        fault, requests = self.fault, self.plan.requests
        if fault and fault.kind == "culprit" and fault.request not in requests:
            return
        if fault is None or not self._is_due(*kinds):
            return
        if self.booking is not None:
            self.may_fail.add(self.booking)
        elif len(requests) == 1 and not fault.kind.startswith("interrupt"):
            self.may_fail |= set(requests)
        among_others = fault.kind in ("forward", "copy", "culprit") and len(requests) > 1
        self.seen["step rolled back"] += among_others
        self.seen["culprit among others"] += among_others and fault.kind == "culprit"
        if fault.kind.startswith("interrupt"):
            raise InjectedInterrupt
        raise Injected(fault.kind)


@dataclass(frozen=True)
class _Before:
    """A request before a step."""

    begun: bool
    num_preemptions: int
    where: str


def _num_shared(left: Tokens, right: Tokens) -> int:
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )
