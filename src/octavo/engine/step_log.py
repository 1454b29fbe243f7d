"""StepLog: one StepRecord for each step that ran, counted from its plan and the batch it became."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.batch import Batch, StepOutput
from octavo.engine.step_plan import StepPlan
from octavo.kv_cache.manager import BlockTable, KVCacheManager
from octavo.records import StepRecord

_KEPT_RECORDS = 65536


@dataclass(frozen=True, slots=True)
class StepRun:
    """A plan as it ran."""

    plan: StepPlan
    batch: Batch
    output: StepOutput
    forward_seconds: float


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The pool while all rows of a step are stored, before what ended gives its blocks back."""

    blocks_used: int
    blocks_kept: int
    slots_unfilled: int


def occupancy(kv: KVCacheManager, tables: Sequence[BlockTable]) -> Occupancy:
    return Occupancy(kv.pool.num_held, kv.pool.num_evictable, kv.num_unfilled(tables))


class StepLog:
    def __init__(self, kv: KVCacheManager, op_names: Sequence[str]) -> None:
        self.records: deque[StepRecord] = deque(maxlen=_KEPT_RECORDS)
        self._kv = kv
        self._op_names = op_names
        self._num_steps = 0

    def note(self, run: StepRun, used: Occupancy, *, seconds: float, num_waiting: int) -> None:
        plan = run.plan
        by_class: dict[str, int] = {}
        for name, ns in zip(self._op_names, run.output.op_ns, strict=False):
            by_class[name] = by_class.get(name, 0) + int(ns)
        self.records.append(
            StepRecord(
                step=self._num_steps,
                num_requests=len(plan.requests),
                computed_tokens=len(run.batch.tokens),
                kv_read_tokens=sum(item.begin for item in plan.scheduled),
                output_rows=len(run.batch.output_rows),
                seconds=seconds,
                forward_seconds=run.forward_seconds,
                num_waiting=num_waiting,
                num_preempted=plan.num_preempted,
                kv_blocks_used=used.blocks_used,
                kv_blocks_kept=used.blocks_kept,
                kv_blocks_total=self._kv.pool.num_blocks,
                kv_slots_unfilled=used.slots_unfilled,
                kv_blocks_copied=len(plan.copies),
                op_ns=tuple(by_class.items()),
            )
        )
        self._num_steps += 1
