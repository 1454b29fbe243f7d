"""Measures an engine that is stepped: tokens and times of each step in, tokens a second out.

Runs in the peers' interpreters: the standard library and `workloads`, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.peer.workloads import Workload


class Stepper(Protocol):
    def begin(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> None:
        """Offer all requests: greedy, and to their whole length."""
        ...

    def step(self) -> Sequence[int]:
        """Run one step; the new tokens that each request has by now."""
        ...


def measured(
    stepper: Stepper,
    work: Workload,
    prompts: Sequence[Sequence[int]],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Tokens a second of what `work` counts."""
    wanted = [each.new for each in work.requests]
    began = clock()
    stepper.begin(prompts, wanted)
    all_began: tuple[float, int] | None = None  # when each request had a token, and all they had
    first_ended: tuple[float, int] | None = None
    have: Sequence[int] = [0] * len(wanted)
    while any(count < most for count, most in zip(have, wanted, strict=True)):
        have = stepper.step()
        now = clock()
        if all_began is None and min(have) > 0:
            all_began = now, sum(have)
        if first_ended is None and any(c >= m for c, m in zip(have, wanted, strict=True)):
            first_ended = now, sum(have)
    assert all_began is not None, "every request has made a token"
    assert first_ended is not None, "and ended"
    if work.counted == "prompt":
        return sum(map(len, prompts)) / (all_began[0] - began)
    if work.counted == "all":
        return sum(wanted) / (now - began)
    if first_ended[0] <= all_began[0]:
        raise RuntimeError("a request ended before each had a token: nothing to measure")
    return (first_ended[1] - all_began[1]) / (first_ended[0] - all_began[0])
