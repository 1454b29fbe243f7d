"""Tally: what the server itself counts, beside the engine's totals. A request is counted once, at
its end; a token never.

Knows no names of metrics: `metrics.py` reads it. Nothing that is counted here is named by a client.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from octavo.request import RequestOutput
from octavo.server.outcome import Outcome

_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_STEP_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class Histogram:
    """Counts of values by upper bounds that never change."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum = 0.0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def add(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each bound, and how many values were at most that."""
        count = 0
        for bound, own in zip((*self._bounds, float("inf")), self._counts, strict=True):
            count += own
            yield bound, count


class Tally:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route ("none") and code
        self.refusals: Counter[int] = Counter()  # by status, those of connections among them
        self.noted_fields = 0
        self.connections = 0  # that are open
        self.streams = 0  # that are open
        self.time_to_first_token = Histogram(_SECONDS)
        self.inter_token = Histogram(_STEP_SECONDS)
        self.queue = Histogram(_SECONDS)
        self.end_to_end = Histogram(_SECONDS)
        self.prompt_tokens = Histogram(_TOKENS)
        self.generation_tokens = Histogram(_TOKENS)

    def count(self, outcome: Outcome) -> None:
        """Count a request that has ended."""
        self.requests[outcome.route or "none", outcome.code] += 1
        self.noted_fields += len(outcome.noted)
        if outcome.error is not None and not outcome.is_gone and outcome.code != 500:
            self.refusals[outcome.code] += 1
        if outcome.outputs:
            self.end_to_end.add(outcome.seconds)
        for output in outcome.outputs.values():
            self._count_output(output)

    def _count_output(self, output: RequestOutput) -> None:
        metrics, usage = output.metrics, output.usage
        self.prompt_tokens.add(usage.prompt_tokens)
        if output.outputs:  # an embedding has none
            self.generation_tokens.add(usage.completion_tokens)
        if metrics.queue_ms is not None:
            self.queue.add(metrics.queue_ms / 1e3)
        if metrics.ttft_ms is not None:
            self.time_to_first_token.add(metrics.ttft_ms / 1e3)
        between = usage.completion_tokens - len(output.outputs)
        if metrics.tpot_ms is not None and between > 0:
            self.inter_token.add(metrics.tpot_ms / 1e3, between)
