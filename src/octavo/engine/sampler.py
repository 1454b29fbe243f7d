"""Sampler: the third verb. What the head gave becomes a decision for each request of the step.

Changes nothing: what raises in here can be decided again. Where a request itself raises, its
decision is that error. Knows no blocks and no queues.
"""

from __future__ import annotations

import math

from octavo.batch import StepOutput
from octavo.engine.decoding.decoding import Decision, HeadOutput
from octavo.engine.decoding.drawing import Drawing
from octavo.engine.decoding.every_row import row_value
from octavo.engine.live import Live, LiveRequests
from octavo.engine.step import StepPlan
from octavo.errors import ModelError
from octavo.request import Request


class Sampler:
    def __init__(self, requests: LiveRequests, drawing: Drawing) -> None:
        self._requests = requests
        self._drawing = drawing

    def sample(self, plan: StepPlan, out: StepOutput) -> list[Decision]:
        """Return one decision for each request of the plan, also for those whose prompt goes on."""
        outputs: dict[Request, list[HeadOutput]] = {request: [] for request in plan.requests}
        for output in plan.outputs(out):
            outputs[output.branch.request].append(output)
        caught_up = {item.branch.request for item in plan.scheduled if item.samples}
        return [
            self._decide(self._requests.by_request[request], given, request in caught_up)
            for request, given in outputs.items()
        ]

    def _decide(self, live: Live, outputs: list[HeadOutput], caught_up: bool) -> Decision:
        request, decoding = live.request, live.decoding
        try:
            if any(math.isnan(output.log_sum_exp) for output in outputs):
                raise ModelError("the model's logits are not finite: check the file, or another")
            drawn_from = [each for each in outputs if each.samples]
            values = [row_value(each, self._drawing) for each in outputs if not each.samples]
            decision = (
                decoding.decide(request, drawn_from) if caught_up else Decision(request, decoding)
            )
            decision.row_values = values
            return decision
        except Exception as error:
            return Decision(request, decoding, error=error)
