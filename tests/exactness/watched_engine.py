"""WatchedEngine: a real engine over a tiny model, with everything that it does held against the
plain pool and against each request alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octavo.config import EngineConfig
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import StepResult
from octavo.errors import ModelError, OutOfMemoryError, UsageError
from octavo.kernels import native
from octavo.kv_cache.cache import Root
from octavo.records import Pin
from octavo.request import FinishReason, RequestOptions, RowValues
from octavo.sampling_params import SamplingParams
from octavo.verification.recorder import RecordedRow
from tests.engine.tiny_engine import NAMESPACE, engine_over
from tests.exactness.alone import Alone, compare
from tests.exactness.ended import check_answers, check_beams, values_of
from tests.exactness.plain_prefixes import PlainGroup, num_shared
from tests.exactness.probe import Clock, Injected, Probe, ProbedRunner, Tokens
from tests.tiny import TinyModel, make_runner_of

_LIVELOCK = 4000  # steps that the requests of one example never need


class WatchedEngine:
    def __init__(
        self, model: TinyModel, pool: native.ThreadPool, alone: Alone, seen: Counter[str],
        **options: Any,
    ) -> None:  # fmt: skip
        sizes = {name: options.pop(name) for name in ("num_blocks", "max_rows")}
        self.clock = Clock()
        self.probe = Probe(self.clock, seen)
        self.runner = make_runner_of(ProbedRunner, model, pool, **sizes, **options)
        self.engine = engine_over(
            self.runner, model.program, eos_ids=sorted(alone.eos_ids), clock=self.clock,
            on_event=self.probe.happened, **options,
        )  # fmt: skip
        specs = model.program.groups
        kv: dict[str, Any] = {
            name: options[name] for name in ("kv_dtype", "kv_sinks") if name in options
        }
        has_sinks = EngineConfig.parse(kv).kv_sink_tokens > 0
        groups = [PlainGroup(s.window, s.beginning, s.window > 0 or not has_sinks) for s in specs]
        seen["contexts that slide"] += any(spec.beginning for spec in specs)
        self.slides_at = min((s.most_seen for s in specs if s.slides), default=None)
        seen["V read from K"] += any(layout.v_aliases_k for layout in self.runner.layouts)
        groups += [PlainGroup(0, has_others=False) for s in specs if has_sinks and not s.window]
        self.probe.attach(self.engine, self.runner, groups, is_lru=options["eviction"] == "lru")
        self.alone = alone
        self.seen = seen
        self.kv = self.engine.kv
        self.shares = bool(options["prefix_cache"])
        self.requests: list[Request] = []
        self.unfinished: dict[Request, _Before] = {}
        self.pins: dict[Pin, tuple[str, Tokens]] = {}  # of a salt, the tokens that are pinned
        self.private: dict[Request, Root] = {}  # which nobody else may find anything under
        self.cancelled: set[Request] = set()
        self.cut: set[Branch] = set()  # answers that were ended one by one
        self.told: Counter[Request | Branch] = Counter()  # by steps' results
        self.preempted: set[Request] = set()  # and did not grow since
        self.rows: list[RecordedRow] = []  # not compared yet
        self.computed_before: dict[Branch, Tokens] = {}  # before the step

    # What a user does.

    def add(
        self,
        prompt: Tokens,
        params: SamplingParams,
        options: RequestOptions,
        every_row: RowValues | None = None,
    ) -> None:
        try:
            request = self.engine.add(prompt, params, options, every_row)
        except (OutOfMemoryError, UsageError) as error:
            self.seen[f"refused: {type(error).__name__}"] += 1
        else:
            leaves_nothing = request.every_row not in (None, "logprobs")
            assert request.is_private == (leaves_nothing or not self.shares)
            if request.is_private:
                self.private[request] = request.root
            self.requests.append(request)
            self.unfinished[request] = self._look_at(request)
        self.check()

    def step(self) -> None:
        self.seen["step"] += 1
        before = dict(self.unfinished)
        self.computed_before = dict(self.probe.computed)
        result = StepResult()
        with self.probe.expose():
            result = self.engine.step()
        self._count_step(before, result)
        self.check()

    def drain(self) -> None:
        """Step until every request has ended."""
        self.probe.fault = None
        while self.pins:
            assert self.engine.cache.unpin(self.pins.popitem()[0])
        for _ in range(_LIVELOCK):
            if not self.engine.has_unfinished:
                break
            self.step()
        assert not self.engine.has_unfinished, "livelock"
        self.step()  # tells what the last one did, if that raised
        self._check_told()
        assert self.kv.room == self.kv.budget
        self.compare_rows()

    def cancel(self, request: Request) -> None:
        self.seen[f"cancel {self.unfinished[request].where}"] += 1
        self.cancelled.add(request)
        with self.probe.expose():
            self.engine.finish(request, "abort")
        self.check()

    def cancel_branch(self, branch: Branch) -> None:
        """End one answer, as a stop string that was found in its text does."""
        self.seen["end of one answer"] += 1
        self.cut.add(branch)
        with self.probe.expose():
            self.engine.finish_branch(branch, "stop")
        self.check()

    def pin(self, tokens: Sequence[int], salt: str, most: int) -> None:
        with self.probe.expose():
            pin = self.engine.cache.pin(tokens, salt, most)
            self.seen["pin" if pin.num_tokens else "no pin"] += 1
            if pin.num_tokens:
                self.pins[pin] = salt, tuple(tokens[: pin.num_tokens])
        assert self.kv.pins.num_bytes <= self.kv.budget
        self.check()

    def unpin(self, pin: Pin) -> None:
        del self.pins[pin]
        self.seen["unpin"] += 1
        with self.probe.expose():
            assert self.engine.cache.unpin(pin)
        self.check()

    def clear(self, salt: str | None) -> None:
        self.seen["pins cleared"] += len(self.pins)
        with self.probe.expose():
            self.engine.cache.clear(salt)
        kept = {p for each in ("", "alice") for p in self.engine.cache.view(each).pins}
        self.pins = {pin: of for pin, of in self.pins.items() if pin in kept}
        self.check()

    def wait(self, ms: float) -> None:
        self.clock.now += ms / 1e3

    def reclaim(self) -> None:
        evicted = self.kv.counts().blocks_evicted
        with self.probe.expose():
            self.engine.reclaim()
        self.seen["reclaim of cached blocks"] += self.kv.counts().blocks_evicted > evicted
        self.check()

    # What must hold.

    def check(self) -> None:
        self.engine.check_integrity()
        self.probe.plain.check()
        self._check_tables()
        for pin, (salt, tokens) in self.pins.items():
            found = self.kv.match(self.kv.open(replace(NAMESPACE, salt=salt)), (*tokens, -1))
            assert found.num_tokens == pin.num_tokens
        self.rows += self.runner.take_rows()
        for request in [r for r in self.unfinished if r.finished]:
            self.compare(request, self.unfinished.pop(request))
        for request in self.unfinished:
            self.unfinished[request] = self._look_at(request)
        if len(self.rows) > 300:
            self.compare_rows()

    def compare_rows(self) -> None:
        if (end := self.slides_at) is not None:
            self.seen["rows behind a slide"] += sum(len(row.prefix) > end for row in self.rows)
        self.seen["rows compared"] += compare(self.rows, self.alone)
        self.rows.clear()

    def compare(self, request: Request, before: _Before) -> None:
        """A request that ended gave what it gives alone, up to where it was ended."""
        self.compare_rows()
        for reason in {s.finish_reason for s in request.branches}:
            self.seen[f"ended: {reason}"] += 1
        if any(s.finish_reason == "error" for s in request.branches):
            assert isinstance(request.error, (Injected, ModelError)), repr(request.error)
            assert request in self.probe.may_fail
        if request in self.private:
            left = self.kv.match(self.private[request], request.prompt_token_ids)
            assert left.num_tokens == 0
        early, may_fail = self._may_end_by(request), request in self.probe.may_fail
        self.seen[values_of(request, self.alone, early)] += 1
        if not request.params.beam_width:
            check_answers(request, self.alone, early, self.cut, may_fail)
        elif not may_fail:
            check_beams(request, self.alone, early, before.num_drawn)

    def _check_tables(self) -> None:
        for request in self.engine.requests.running:
            for branch in request.branches:
                if branch.table is None:
                    continue
                self.probe.prefixes.check(branch.table, branch.num_computed_tokens)
                if not request.is_private:
                    salt = request.options.cache_salt
                    self.probe.prefixes.note(salt, branch.tokens, branch.table)

    def _check_told(self) -> None:
        """Every token, and every end that was not asked for, was in the result of one step."""
        for request in self.requests:
            if request not in self.cancelled and self.cut.isdisjoint(request.branches):
                assert self.told[request] == 1
            for branch in () if request.params.beam_width else request.branches:
                assert self.told[branch] == branch.num_completion_tokens

    def _may_end_by(self, request: Request) -> set[FinishReason]:
        """Return the reasons for which it may have ended before its time."""
        ends: set[FinishReason] = {"abort"} if request in self.cancelled else set()
        allowed = request.options.deadline_ms
        if allowed is not None and self.clock.now >= request.added_at + allowed / 1e3:
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
            if request.num_preemptions > then.num_preemptions:
                self.preempted.add(request)
                kind = "beams" if request.params.beam_width else "answers"
                seen[f"preempt of {kind}" if len(request.live_branches) > 1 else "preempt"] += 1
            if request.cache is not None and not then.begun:
                self._count_hit(request)
            if any(s.finish_reason == "deadline" for s in request.branches):
                seen[f"deadline {then.where}"] += 1
        branches = (branch for request in self.engine.requests.all for branch in request.branches)
        seen["waited for a producer"] += any(branch.wait is not None for branch in branches)

    def _count_hit(self, request: Request) -> None:
        """Counts what was found of a prompt: no less than what could be, no more than its own
        tenant's requests had."""
        cache, prompt = request.cache, request.prompt_token_ids
        assert cache is not None
        matched = cache.matched_tokens
        self.seen["admit"] += 1
        self.seen[f"reason: {cache.reason}"] += 1
        if matched:
            whole, part = matched == len(prompt) - 1, matched % self.kv.block_size
            kind = "full" if whole else "partial" if part else "of whole blocks"
            self.seen[f"hit, {kind}"] += 1
            self.seen["hit, cut by a window"] += cache.reason == "window"
        salt, computed = request.options.cache_salt, self.computed_before.items()
        mates = [tokens for each, tokens in computed if each.request.options.cache_salt == salt]
        assert matched == 0 or request not in self.private
        could = self._longest(request)  # before the step, of what is there still
        self.seen["hit that had to be"] += could > 0
        assert matched >= could
        assert matched <= max((num_shared(prompt, tokens) for tokens in mates), default=0)

    def _longest(self, request: Request) -> int:
        """Tokens of its prompt that it has to find; the last one runs in any case."""
        if request in self.private or request.every_row is not None:
            return 0
        prompt, salt = request.prompt_token_ids, request.options.cache_salt
        return min(self.probe.prefixes.longest(salt, prompt), len(prompt) - 1)

    def _look_at(self, request: Request) -> _Before:
        live = [branch for branch in request.live_branches if branch.table is not None]
        if not live:
            where = "after a preemption" if request.num_preemptions else "while waiting"
        else:
            decodes = live[0].num_completion_tokens > 0
            where = "in decode" if decodes else "in the middle of a prefill"
        drawn = max((branch.num_completion_tokens for branch in request.live_branches), default=0)
        return _Before(request.cache is not None, request.num_preemptions, where, drawn)


@dataclass(frozen=True)
class _Before:
    """A request before a step."""

    begun: bool
    num_preemptions: int
    where: str
    num_drawn: int  # tokens of each beam
