"""What a load came to, under the names that `vllm bench serve` gives the same figures.

Knows replies and failures; knows no server.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from octavo.bench.server_load.asks import Ask
from octavo.bench.server_load.load import Load
from octavo.bench.server_load.stream import AskError, Reply


@dataclass(frozen=True, slots=True)
class Times:
    """Times of one kind over all replies, in milliseconds."""

    mean: float
    median: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    completed: int
    failed: int
    reasons: tuple[tuple[str, int], ...]  # why requests failed and how many, most first
    duration: float  # seconds
    total_input_tokens: int  # as the server counts them, like all tokens here
    total_output_tokens: int
    total_cached_tokens: int | None  # of the input; None where no reply tells
    asked_output_tokens: int  # of the completed requests
    ttft: Times | None  # to the first text; None of all four where there is nothing to time
    tpot: Times | None  # a token after the first
    itl: Times | None  # between events with text
    e2el: Times | None  # to the last text

    @property
    def request_throughput(self) -> float:
        return self.completed / self.duration

    @property
    def output_throughput(self) -> float:
        return self.total_output_tokens / self.duration

    @property
    def total_token_throughput(self) -> float:
        return (self.total_input_tokens + self.total_output_tokens) / self.duration

    def to_dict(self) -> dict[str, object]:
        found: dict[str, object] = {
            "completed": self.completed,
            "failed": self.failed,
            "failures": [{"reason": why, "requests": count} for why, count in self.reasons],
            "duration": self.duration,
            "total_input_tokens": self.total_input_tokens,
            "total_output_tokens": self.total_output_tokens,
            "total_cached_tokens": self.total_cached_tokens,
            "asked_output_tokens": self.asked_output_tokens,
            "request_throughput": self.request_throughput,
            "output_throughput": self.output_throughput,
            "total_token_throughput": self.total_token_throughput,
        }
        for name in ("ttft", "tpot", "itl", "e2el"):
            times = getattr(self, name)
            for figure in ("mean", "median", "p99"):
                found[f"{figure}_{name}_ms"] = None if times is None else getattr(times, figure)
        return found


def summarize(asks: Sequence[Ask], load: Load) -> Summary:
    """`asks` are those of the outcomes, in their order."""
    done = [
        (ask, outcome)
        for ask, outcome in zip(asks, load.outcomes, strict=True)
        if isinstance(outcome, Reply)
    ]
    replies = [reply for _, reply in done]
    cached = [r.usage.cached for r in replies if r.usage.cached is not None]
    return Summary(
        completed=len(replies),
        failed=len(load.outcomes) - len(replies),
        reasons=tuple(reasons(e for e in load.outcomes if isinstance(e, AskError))),
        duration=load.seconds,
        total_input_tokens=sum(r.usage.prompt for r in replies),
        total_output_tokens=sum(r.usage.answer for r in replies),
        total_cached_tokens=sum(cached) if cached else None,
        asked_output_tokens=sum(ask.max_tokens for ask, _ in done),
        ttft=times([r.first for r in replies]),
        tpot=times([r.each for r in replies if r.each is not None]),
        itl=times([gap for r in replies for gap in r.gaps]),
        e2el=times([r.whole for r in replies]),
    )


def times(seconds: Sequence[float]) -> Times | None:
    """Percentiles lie between the two nearest values, in proportion, as numpy's do by default."""
    if not seconds:
        return None
    found = 1e3 * np.asarray(seconds)  # (values,) float64, ms
    median, p99 = np.percentile(found, [50, 99])
    return Times(float(found.mean()), float(median), float(p99))


def reasons(errors: Iterable[AskError]) -> list[tuple[str, int]]:
    """Each reason once. Those that differ in numbers alone are one, told by its first."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for error in errors:
        kind = re.sub(r"\d[\d,.]*", "0", str(error))
        first.setdefault(kind, str(error))
        counts[kind] += 1
    return [(first[kind], count) for kind, count in counts.most_common()]
