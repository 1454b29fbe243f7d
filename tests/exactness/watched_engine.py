"""WatchedEngine: a real engine over a tiny model, with everything that it does held against the
plain pool and against each request alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Any

from octavo.batch import Want
from octavo.engine.engine import StepResult
from octavo.errors import ModelError, OutOfMemoryError, UsageError
from octavo.kernels import native
from octavo.kv_cache.block_pool import BlockId
from octavo.request import Branch, FinishReason, Request, RequestOptions
from octavo.sampling_params import SamplingParams
from tests.engine.tiny_engine import NAMESPACE, tiny_engine
from tests.exactness.alone import Alone, Row
from tests.exactness.probe import Clock, Injected, Probe, Tokens
from tests.tiny import TinyModel

_LIVELOCK = 4000  # steps that the requests of one example never need


class WatchedEngine:
    def __init__(
        self, model: TinyModel, pool: native.ThreadPool, alone: Alone, seen: Counter[str],
        **options: Any,
    ) -> None:  # fmt: skip
        self.clock = Clock()
        self.engine = tiny_engine(
            model, pool, eos_ids=sorted(alone.eos_ids), clock=self.clock, **options
        )
        self.probe = Probe(self.engine, self.clock, seen)
        self.alone = alone
        self.seen = seen
        self.kv = self.engine._kv
        self.scheduler = self.engine._scheduler
        self.shares = bool(options.get("prefix_cache", True))
        self.requests: list[Request] = []
        self.unfinished: set[Request] = set()
        self.cancelled: set[Request] = set()
        self.cut: set[Branch] = set()  # answers that were ended one by one
        self.told: Counter[Request | Branch] = Counter()  # by steps' results
        self.preempted: set[Request] = set()  # and did not grow since
        self.computed_before: dict[Branch, Tokens] = {}  # before the step
        self.pinned: list[list[BlockId]] = []

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
        self.computed_before = dict(self.probe.computed)
        result = StepResult()
        with self.probe.expose():
            result = self.engine.step()
        self._count_step(before, result)
        self.check()

    def drain(self) -> None:
        """Step until every request has ended."""
        self.probe.fault = None
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
        with self.probe.expose():
            self.engine.finish(request, "abort")
        self.check()

    def cancel_branch(self, branch: Branch) -> None:
        """As for a stop string that was found in its text."""
        self.seen["end of one answer"] += 1
        self.cut.add(branch)
        with self.probe.expose():
            self.engine.finish_branch(branch, "stop")
        self.check()

    def wait(self, ms: float) -> None:
        self.clock.now += ms / 1e3

    def reclaim(self) -> None:
        evicted = self.kv.pool.num_evicted
        with self.probe.expose():
            self.engine.reclaim()
        self.seen["reclaim of kept blocks"] += self.kv.pool.num_evicted > evicted
        self.check()

    def all_rows(self, tokens: Tokens, rows_of_step: int, most: int) -> None:
        """Every row of a prompt; given up after `most` steps."""
        found: list[Row] = []
        rows = self.engine.all_rows(tokens, Want.LOGITS, rows_of_step)
        with self.probe.expose():
            try:
                for out in islice(rows, most):
                    found += map(Row, out.logits, out.log_sum_exp.tolist())
            except OutOfMemoryError:
                self.seen["all_rows without room"] += 1
        del rows  # given up
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
        self.probe.plain.check()
        for request in [r for r in self.unfinished if r.finished]:
            self.unfinished.remove(request)
            self.compare(request)
        if len(self.probe.rows) > 300:
            self.compare_rows()

    def compare_rows(self) -> None:
        """Every row that a token was drawn from is that of its branch computed whole."""
        self.seen["rows compared"] += len(self.probe.rows)
        for tokens, row in sorted(self.probe.rows, key=lambda each: -len(each[0])):
            assert row == self.alone.row(tokens), f"other logits after {len(tokens)} tokens"
        self.probe.rows.clear()

    def compare(self, request: Request) -> None:
        """A request that ended gave what it gives alone, up to where it was ended."""
        self.compare_rows()
        for reason in {s.finish_reason for s in request.branches}:
            self.seen[f"ended: {reason}"] += 1
        if any(s.finish_reason == "error" for s in request.branches):
            assert isinstance(request.error, (Injected, ModelError)), repr(request.error)
            assert request in self.probe.may_fail
        if request.params.beam_width:
            self._compare_beams(request)
            return
        for branch in request.branches:
            alone = self.alone.answer(request, branch.index, branch.num_completion_tokens)
            assert branch.tokens == alone.tokens
            count = len(branch.logprobs) if request in self.probe.may_fail else None
            assert branch.logprobs == alone.logprobs[:count]
            ends = self._may_end_by(request) | ({"stop"} if branch in self.cut else set())
            if request.params.max_tokens == 0:
                ends |= {"length"}
            assert branch.finish_reason in ({alone.finish_reason} - {None} or ends)
        if not self._may_end_by(request):
            assert sorted(s.index for s in request.branches) == list(range(request.params.n))
        wanted = request.params.prompt_logprobs is not None
        if wanted and not request.needs_all_rows:
            assert request.prompt_logprobs == self.alone.prompt_logprobs(request)
        assert not request.needs_all_rows or self._may_end_by(request)

    def _compare_beams(self, request: Request) -> None:
        if request in self.probe.may_fail:
            return
        found = [(tuple(s.tokens), s.cumulative_logprob, s.finish_reason) for s in request.branches]
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
            if request not in self.cancelled and self.cut.isdisjoint(request.branches):
                assert self.told[request] == 1
            for branch in () if request.params.beam_width else request.branches:
                assert self.told[branch] == branch.num_completion_tokens

    def _may_end_by(self, request: Request) -> set[FinishReason]:
        """Why it may have ended before its time."""
        ends: set[FinishReason] = {"abort"} if request in self.cancelled else set()
        if request.deadline is not None and self.clock.now >= request.deadline:
            ends.add("deadline")
        return ends | ({"error", "abort"} if request in self.probe.may_fail else set())

    # What is counted.

    def _count_step(self, before: Mapping[Request, _Before], result: StepResult) -> None:
        seen, grown = self.seen, result.grown
        self.told.update([*grown, *result.finished])
        for branch in grown:
            if branch.request in self.preempted:
                self.preempted.remove(branch.request)
                seen["resume"] += 1
        for request, then in before.items():
            live = sum(s.finish_reason is None for s in request.branches)
            if request.num_preemptions > then.num_preemptions:
                self.preempted.add(request)
                kind = "beams" if request.params.beam_width else "answers"
                seen[f"preempt of {kind}" if live > 1 else "preempt"] += 1
            if request.cache is not None and not then.begun:
                self._count_hit(request)
            if any(s.finish_reason == "deadline" for s in request.branches):
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
            for branch, tokens in self.computed_before.items()
            if self.shares and branch.request.options.cache_salt == request.options.cache_salt
        ]
        assert matched <= max((_num_shared(prompt, tokens) for tokens in mates), default=0)

    def _where(self, request: Request) -> str:
        live = [s for s in request.branches if s in self.scheduler._tables]
        if not live:
            return "after a preemption" if request.num_preemptions else "while waiting"
        return "in decode" if live[0].num_completion_tokens else "in the middle of a prefill"


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
