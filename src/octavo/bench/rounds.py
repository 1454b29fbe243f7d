"""Rounds of a measurement with a probe before and after each, and what they come to.

Knows medians and rooflines; knows no models. A round's share of the roofline is taken with the mean
of the two probes around it, so that a machine that slows down slows both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from octavo.bench.machine import Probe, Reading


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Bytes moved and operations done for one token, counted by the cost interpreter."""

    bytes_per_token: float  # weights and KV, from and to memory
    ops_per_token: float


@dataclass(frozen=True, slots=True)
class Round:
    tokens_per_second: float
    reading: Reading


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds; the names are those of `octavo bench --json`."""

    tokens_per_second: float
    spread: float  # (fastest - slowest) / median
    bytes_per_token: float
    read_bandwidth_gbps: float
    bandwidth_fraction: float
    gops: float
    peak_gops: float
    compute_fraction: float
    roofline_fraction: float  # of the speed that bandwidth and peak together allow
    rounds: tuple[float, ...]  # tokens per second of each


def measure(
    run: Callable[[int], float], probe: Probe, *, warmups: int, rounds: int
) -> Iterator[Round]:
    """Yield each round as it ends; `run(i)` is one round's tokens per second."""
    for i in range(warmups):
        run(i)
    before = probe.read()
    for i in range(warmups, warmups + rounds):
        speed = run(i)
        after = probe.read()
        yield Round(speed, _between(before, after))
        before = after


def summarize(rounds: list[Round], cost: TokenCost) -> Summary:
    speeds = [each.tokens_per_second for each in rounds]
    speed = median(speeds)
    return Summary(
        tokens_per_second=speed,
        spread=(max(speeds) - min(speeds)) / speed,
        bytes_per_token=cost.bytes_per_token,
        read_bandwidth_gbps=median(each.reading.bytes_per_second for each in rounds) / 1e9,
        bandwidth_fraction=median(_bandwidth_share(each, cost) for each in rounds),
        gops=speed * cost.ops_per_token / 1e9,
        peak_gops=median(each.reading.ops_per_second for each in rounds) / 1e9,
        compute_fraction=median(_compute_share(each, cost) for each in rounds),
        roofline_fraction=median(
            max(_bandwidth_share(each, cost), _compute_share(each, cost)) for each in rounds
        ),
        rounds=tuple(speeds),
    )


def _bandwidth_share(each: Round, cost: TokenCost) -> float:
    return each.tokens_per_second * cost.bytes_per_token / each.reading.bytes_per_second


def _compute_share(each: Round, cost: TokenCost) -> float:
    return each.tokens_per_second * cost.ops_per_token / each.reading.ops_per_second


def _between(a: Reading, b: Reading) -> Reading:
    return Reading(
        (a.bytes_per_second + b.bytes_per_second) / 2, (a.ops_per_second + b.ops_per_second) / 2
    )
