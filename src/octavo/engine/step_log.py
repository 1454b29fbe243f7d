"""StepLog: one StepRecord for each step that ran, counted from its plan and the batch it became."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from octavo.batch import StepOutput
from octavo.engine.step import StepPlan
from octavo.kv_cache.cache import KVCounts
from octavo.records import StepRecord

_NUM_RECORDS = 65536


class StepLog:
    def __init__(self, op_names: Sequence[str]) -> None:
        self.records: deque[StepRecord] = deque(maxlen=_NUM_RECORDS)
        self._op_names = op_names
        self._num_steps = 0

    def note(
        self,
        plan: StepPlan,
        out: StepOutput,
        counts: KVCounts,
        *,
        seconds: float,
        num_waiting: int,
    ) -> None:
        """`counts` of the cache while all rows are stored and nothing has ended."""
        assert plan.batch is not None
        by_class: dict[str, int] = {}
        for name, ns in zip(self._op_names, out.op_ns, strict=False):
            by_class[name] = by_class.get(name, 0) + int(ns)
        self.records.append(
            StepRecord(
                step=self._num_steps,
                num_requests=len(plan.requests),
                computed_tokens=len(plan.batch.tokens),
                kv_read_tokens=sum(item.begin for item in plan.scheduled),
                output_rows=len(plan.batch.output_rows),
                seconds=seconds,
                forward_seconds=out.seconds,
                num_waiting=num_waiting,
                num_preempted=plan.num_preempted,
                kv_blocks_used=counts.blocks_used,
                kv_blocks_kept=counts.blocks_cached,
                kv_blocks_total=counts.blocks_total,
                kv_slots_unfilled=counts.slots_unfilled,
                kv_blocks_copied=sum(each.kind == "copy" for each in plan.transfers),
                op_ns=tuple(by_class.items()),
            )
        )
        self._num_steps += 1
