"""Probe: what the tests put between the parts of a real engine.

Counts what happened in `seen`, and raises faults; it knows whom each may end. Every block is filled
with NaN when it is allocated, so that a slot that nobody wrote shows up at once, and block tables
end at a page that nobody may touch. It judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from octavo.batch import FloatArray, StepOutput, Want
from octavo.engine.decoding.draws import Draws
from octavo.engine.engine import Engine
from octavo.engine.nouns import Branch, Request
from octavo.engine.sampler import Sampler
from octavo.engine.step import Decision, StepPlan
from octavo.kv_cache.cache import Transfer
from octavo.kv_cache.groups import KeepEnds, KeepLast
from octavo.records import BlockEvent, BlockEventKind
from octavo.verification.recorder import RecordingRunner
from tests.exactness.plain_pool import PlainPool, watch
from tests.exactness.plain_prefixes import PlainGroup, PlainPrefixes
from tests.kernels.guard import guarded

Tokens = tuple[int, ...]
_NAN = 0x7FC1  # in bf16; two of them are one in float32
# After each of these a block may hold other tokens than before.
_ANEW = (BlockEventKind.ALLOCATE, BlockEventKind.TAKE_OVER, BlockEventKind.CACHE)
_MS_PER_STEP, _MS_PER_ROW = 3.0, 1.0  # of the engine's clock


class Injected(Exception):
    """A fault that the test put into a step."""


class InjectedInterrupt(KeyboardInterrupt):
    """Ctrl-C at a bad moment."""


@dataclass
class Fault:
    """Raised once, `after` so many chances of its `kind`: forward, transfer, draw, pool, interrupt
    (in forward), interrupted draw; nan: in one row. culprit: raised by every step with `request`.
    """

    kind: str
    after: int = 0
    request: Request | None = None


class Clock:
    """Seconds, which pass when rows run, and when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class ProbedRunner(RecordingRunner):
    probe: Probe

    def forward(self, plan: StepPlan) -> StepOutput:
        if (batch := plan.batch) is not None:
            plan.batch = replace(batch, block_tables=guarded(batch.block_tables))
        return self.probe.forward(super().forward, plan)

    def transfer(self, transfers: Iterable[Transfer]) -> None:
        transfers = list(transfers)
        if transfers:
            self.probe.about_to_transfer()
        super().transfer(transfers)


class ProbedDraws(Draws):
    probe: Probe

    def draw(
        self, branch: Branch, index: int, logits: FloatArray, likeliest: int | None = None
    ) -> int:
        self.probe.about_to_draw(branch.request)
        return super().draw(branch, index, logits, likeliest)


class ProbedSampler(Sampler):
    probe: Probe

    def sample(self, plan: StepPlan, out: StepOutput) -> list[Decision]:
        decisions = super().sample(plan, out)
        for decision in decisions:
            self.probe.count_decision(decision)
        return decisions


class Probe:
    def __init__(self, clock: Clock, seen: Counter[str]) -> None:
        self.clock = clock
        self.seen = seen
        self.computed: dict[Branch, Tokens] = {}  # whose K and V may be found by others
        self.fault: Fault | None = None
        self.may_fail: set[Request] = set()
        self._plan = StepPlan(0.0)  # of the step that runs
        self._exposed = False  # to faults
        self._raised = False  # in the call that is exposed
        self._last_event: BlockEvent | None = None
        self._let_go: set[tuple[int, int]] = set()  # group and number, and nobody took it since

    def attach(
        self, engine: Engine, runner: ProbedRunner, groups: Sequence[PlainGroup], *, is_lru: bool
    ) -> None:
        self.engine = engine
        self.runner = runner
        self.plain = PlainPool(engine.kv.pool, self.clock, is_lru=is_lru)
        self.prefixes = PlainPrefixes(groups, engine.kv.block_size, engine.kv.pool.is_cached)
        watch(self.plain, self._about_to_call_pool)
        runner.probe, runner.clock = self, self.clock
        draws = ProbedDraws(
            runner.isa, runner.vocab_size, engine.draws.eos_ids, mask_words=runner.mask_words
        )
        draws.probe, engine.draws = self, draws
        sampler = ProbedSampler(draws)
        sampler.probe, engine.sampler = self, sampler

    @contextmanager
    def expose(self) -> Iterator[None]:
        """Faults are raised in here, and go no further."""
        self._plan, self._exposed, self._raised = StepPlan(0.0), True, False
        try:
            yield
        except (Injected, InjectedInterrupt):
            self.seen["call raised"] += 1
        self._exposed = False

    # What the engine does.

    def forward(self, real: Callable[[StepPlan], StepOutput], plan: StepPlan) -> StepOutput:
        self._plan = plan
        self.seen["run of a suspect"] += self._raised
        self.seen["copy-on-write"] += sum(t.kind == "copy" for t in plan.transfers)
        self.seen["memory moved between groups"] += any(t.kind == "release" for t in plan.transfers)
        self.seen["no room"] += plan.num_preempted
        if plan.batch is None:
            return real(plan)
        self._raise("forward", "interrupt", "culprit")
        self.clock.now += (_MS_PER_STEP + _MS_PER_ROW * len(plan.batch.tokens)) / 1e3
        out = real(plan)
        for branch, (_, end) in plan.spans.items():
            if not branch.request.is_private:
                self.computed[branch] = tuple(branch.tokens[:end])
        if plan.head_rows and self._is_due("nan"):
            first = plan.head_rows[0]
            out.log_sum_exp[0] = np.nan
            if first.asked.want is Want.HIDDEN:
                out.hidden[0] = np.nan
            self.may_fail.add(first.branch.request)
        return out

    def about_to_transfer(self) -> None:
        self._raise("transfer")

    def about_to_draw(self, request: Request) -> None:
        if self.fault and self.fault.kind == "draw" and self.fault.after == 0:
            self.may_fail.add(request)
        self._raise("draw", "interrupted draw")

    def count_decision(self, decision: Decision) -> None:
        request, parents = decision.request, {each.parent for each in decision.continuations}
        kind = "beams" if request.params.beam_width else "answers"
        self.seen[f"fork of {kind}"] += len(decision.continuations) - len(parents)
        if request.params.beam_width and parents:
            self.seen["drop of a beam"] += len(set(request.branches) - parents)

    def happened(self, event: BlockEvent) -> None:
        """Follow what happened to a KV block."""
        kind, group, block = event.kind, event.group, event.block
        self.seen[f"block: {kind}"] += 1
        if not self.prefixes.groups[group].has_others:
            self.seen[f"sinks: {kind}"] += 1
        if kind in _ANEW:
            self.prefixes.forget(self.plain.id_of(group, block))
        if kind is BlockEventKind.ALLOCATE:
            self._fill(group, block)
            self.seen["block that a window gave back"] += (group, block) in self._let_go
            self._let_go.discard((group, block))
        elif kind is BlockEventKind.EVICT:
            self.plain.note_eviction(group, block)
        elif kind is BlockEventKind.LET_GO:
            self._let_go.add((group, block))
            self._count_window(group)
        elif kind is BlockEventKind.CACHE:
            last = self._last_event
            filled = last and last.kind is BlockEventKind.SHARE and last.group < group
            self.seen["hole filled again"] += bool(filled)
        self._last_event = event

    def _fill(self, group: int, block: int) -> None:
        blocks = self.runner.pages[group].view(np.uint16).reshape(self.runner.num_blocks[group], -1)
        blocks[block] = _NAN

    def _count_window(self, group: int) -> None:
        keeps = self.engine.kv.groups[group].keeps
        assert isinstance(keeps, KeepLast | KeepEnds)
        self.seen["block between let go"] += isinstance(keeps, KeepEnds)
        longer = keeps.window - self.engine.kv.block_size
        than = "shorter than" if longer < 0 else "longer than" if longer > 0 else "of"
        self.seen[f"slide of a window {than} a block"] += 1

    def _about_to_call_pool(self) -> None:
        if self._exposed and self._is_due("pool"):
            # Whoever is being changed may end, and nobody else.
            self.may_fail |= {r for r in self.engine.requests.all if r.is_half_updated or r.ending}
            self._raised = True
            raise Injected("pool")

    # Faults.

    def _is_due(self, *kinds: str) -> bool:
        fault = self.fault
        if fault is None or fault.kind not in kinds:
            return False
        if fault.kind == "culprit" and fault.request not in self._plan.requests:
            return False
        fault.after -= 1
        if fault.after >= 0:
            return False
        if fault.kind != "culprit":  # once
            self.fault = None
        self.seen[f"fault: {fault.kind}"] += 1
        return True

    def _raise(self, *kinds: str) -> None:
        fault = self.fault
        if fault is None or not self._is_due(*kinds):
            return
        if fault.kind == "culprit":
            assert fault.request is not None
            self.may_fail.add(fault.request)
        among_others = len(self._plan.requests) > 1
        self.seen["step taken back"] += among_others and fault.kind in ("forward", "transfer")
        self.seen["culprit among others"] += among_others and fault.kind == "culprit"
        self._raised = True
        if fault.kind.startswith("interrupt"):
            raise InjectedInterrupt
        raise Injected(fault.kind)
