"""Head rows: which rows of a step's plan reach the head, and what it gave each of them.

A branch that caught up has its last row sampled; a request that asked for the log-probabilities
of its prompt has every row of it come out. Knows arrays; draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from octavo.batch import Batch, FloatArray, StepOutput, Want
from octavo.engine.runner import make_batch
from octavo.engine.sampler import NO_EDITS, Edits, Sampler
from octavo.engine.step_plan import ScheduledBranch, StepPlan
from octavo.errors import ModelError


@dataclass(frozen=True, slots=True)
class HeadRow:
    """Row `row` of the batch, at `position` of the item's branch."""

    item: ScheduledBranch
    row: int
    position: int
    want: Want
    edits: Edits

    @property
    def samples(self) -> bool:
        return self.item.samples and self.position == self.item.end - 1


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """What the head gave one row."""

    row: HeadRow
    argmax: int
    log_sum_exp: float
    logits: FloatArray | None  # (vocab,) if the row wanted them
    top: Sequence[tuple[int, float]]  # (token, log-probability), best first, if it wanted those


def head_rows(plan: StepPlan, sampler: Sampler) -> list[HeadRow]:
    rows = []
    ends = accumulate(s.end - s.begin for s in plan.scheduled)
    for item, end_row in zip(plan.scheduled, ends, strict=True):
        request = item.branch.request
        if request.needs_all_rows:
            for position in range(item.begin, min(item.end, request.num_prompt_tokens - 1)):
                row = end_row - item.end + position
                rows.append(HeadRow(item, row, position, Want.LOGITS, NO_EDITS))
        if item.samples:
            want, edits = sampler.want(item.branch)
            rows.append(HeadRow(item, end_row - 1, item.end - 1, want, edits))
    return rows


def step_batch(plan: StepPlan, rows: Sequence[HeadRow], *, num_groups: int, top_k: int) -> Batch:
    """The arrays of a step; block tables are the same in all layer groups."""
    edit_starts = edits = None
    if any(len(r.edits) for r in rows):
        edit_starts = np.cumsum([0, *(len(r.edits) for r in rows)], dtype=np.int32)
        edits = np.concatenate([r.edits for r in rows])
    return make_batch(
        [(s.branch.tokens[s.begin : s.end], s.begin) for s in plan.scheduled],
        [s.blocks for s in plan.scheduled],
        num_groups,
        [r.row for r in rows],
        [r.want for r in rows],
        write_starts=[s.write_start for s in plan.scheduled],
        top_k=top_k,
        edit_starts=edit_starts,
        edits=edits,
    )


def head_outputs(rows: Sequence[HeadRow], out: StepOutput) -> list[HeadOutput]:
    logits = iter(out.logits)
    outputs = []
    for i, row in enumerate(rows):
        lse = float(out.log_sum_exp[i])
        top: list[tuple[int, float]] = []
        if row.want is Want.TOP_K:
            found = zip(out.top_ids[i].tolist(), out.top_logits[i].tolist(), strict=True)
            top = [(token, logit - lse) for token, logit in found]
        mine = next(logits) if row.want is Want.LOGITS else None
        outputs.append(HeadOutput(row, int(out.argmax[i]), lse, mine, top))
    return outputs


def check_finite(output: HeadOutput) -> None:
    if math.isnan(output.log_sum_exp):
        raise ModelError("the model's logits are not finite: check the file, or another")
