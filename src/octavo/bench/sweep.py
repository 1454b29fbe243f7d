"""One figure at several sizes, in turns: a machine that slows down slows all of them.

Knows rounds and probes; knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from octavo.bench.machine import Probe
from octavo.bench.rounds import Round, TokenCost, measure


@dataclass(frozen=True, slots=True)
class Point:
    size: int
    run: Callable[[int], float]  # of a seed: one round's tokens per second
    cost: TokenCost


def sweep(points: Sequence[Point], probe: Probe, rounds: int) -> Iterator[tuple[int, Round]]:
    """Each round as it ends, with the index of its point; one round of the first warms up."""
    points[0].run(rounds)

    def run(turn: int) -> float:
        return points[turn % len(points)].run(turn // len(points))

    done = measure(run, probe, warmups=0, rounds=rounds * len(points))
    for turn, each in enumerate(done):
        yield turn % len(points), each
