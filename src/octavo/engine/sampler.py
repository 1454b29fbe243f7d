"""Sampler: the third verb. What the head gave becomes a decision for each request of the step.

Fills the head rows of the plan, takes the arrays out again, and changes nothing else: what raises
in here can be decided again. Where a request itself raises, its decision is that error. Knows no
blocks and no queues.
"""

from __future__ import annotations

import math

import numpy as np

from octavo.batch import StepOutput
from octavo.engine.decoding.draws import Draws
from octavo.engine.nouns import Request
from octavo.engine.step import Decision, HeadRow, StepPlan
from octavo.errors import ModelError


class Sampler:
    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def sample(self, plan: StepPlan, out: StepOutput) -> list[Decision]:
        """Return one decision for each request of the plan, also for those whose prompt goes on."""
        plan.read(out)
        decisions = [
            self._decide(request, rows, request in plan.caught_up)
            for request, rows in plan.requests.items()
        ]
        if out.logits.size or out.hidden.size:
            for row in plan.head_rows:  # the plan may be kept, for the step that follows
                row.logits = row.hidden = None
        return decisions

    def _decide(self, request: Request, rows: list[HeadRow], caught_up: bool) -> Decision:
        decoding = request.decoding
        try:
            for row in rows:
                if math.isnan(row.log_sum_exp) and not _is_finite(row):
                    raise ModelError(
                        "the model's logits are not finite: check the file, or another"
                    )
            drawn_from = rows if request.every_row is None else [r for r in rows if r.samples]
            if not caught_up:
                decision = Decision(request, decoding)
            else:
                decision = decoding.decide(request, drawn_from)
            if request.every_row is not None:
                values = [self._draws.row_value(row) for row in rows if not row.samples]
                decision.row_values = [*values, *decision.row_values]
            return decision
        except Exception as error:
            return Decision(request, decoding, error=error)


def _is_finite(row: HeadRow) -> bool:
    """Tell whether a row that has no log-sum-exp, since it wanted its hidden state, is finite."""
    return row.hidden is not None and bool(np.isfinite(row.hidden).all())
