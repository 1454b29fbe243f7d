"""Steps and a clock in, tokens a second out: exact numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.peer.stepping import measured
from benchmarks.peer.workloads import Workload
from tests.benchmarks.peer.fakes import BATCH, CHAT, DECODE, PROMPT


class Steps:
    """Each step takes a second."""

    def __init__(self, counts: Sequence[Sequence[int]]) -> None:
        self._counts = iter(counts)
        self.seconds = 0.0
        self.offered: tuple[Sequence[Sequence[int]], Sequence[int]] = ((), ())

    def begin(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> None:
        self.offered = prompts, new

    def step(self) -> Sequence[int]:
        self.seconds += 1
        return next(self._counts)

    def clock(self) -> float:
        return self.seconds


def speed(work: Workload, counts: Sequence[Sequence[int]]) -> float:
    steps, prompts = Steps(counts), work.prompts(100, seed=0)
    found = measured(steps, work, prompts, clock=steps.clock)
    assert steps.offered == (prompts, [each.new for each in work.requests])
    assert next(steps._counts, None) is None
    return found


def test_a_prompt_is_measured_to_its_first_token() -> None:
    assert speed(PROMPT, [[0], [0], [0], [1]]) == 32 / 4


def test_new_tokens_are_measured_from_the_first_to_the_last() -> None:
    assert speed(DECODE, [[0], [1], [2], [2], [4]]) == 3 / 3


def test_streams_are_measured_while_all_run() -> None:
    # The first has three tokens when the last has one, and ends two steps later.
    counts = [[1, 0, 0], [2, 1, 0], [3, 2, 1], [3, 3, 2], [4, 4, 3], [4, 4, 4]]
    assert speed(BATCH, counts) == (11 - 6) / 2


def test_requests_are_measured_from_the_beginning_to_the_end() -> None:
    assert speed(CHAT, [[1, 1, 0], [2, 2, 1], [3, 2, 2], [4, 2, 3]]) == 9 / 4


def test_streams_that_never_run_together_are_no_measure() -> None:
    with pytest.raises(RuntimeError, match="a request ended before each had a token"):
        speed(BATCH, [[4, 0, 0], [4, 4, 0], [4, 4, 4]])
