"""Percent of what the machine can do for each kernel, weight format and ISA level, on one thread.

    python -m benchmarks.kernels [--isa LEVEL ...] [--only TEXT] [--json]

Kernel and limit take turns, so that a machine that slows down slows both: a ratio is the median of
seven turns, and its spread (largest - least) / median. Knows no recorded figures (benchmarks.perf).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.kernel_cases import ROWS, Case, Limits, cases
from octavo.bench.machine import cpu_model
from octavo.kernels import available_isas

TURNS = 7


@dataclass(frozen=True, slots=True)
class Measured:
    isa: str
    kernel: str
    limit: str  # what the ratio is of
    ratio: float
    spread: float
    speed: float  # operations (of the limit read: bytes) a second, the median


def measure(isa: str, limits: Limits, case: Case) -> Measured:
    speeds, ratios = [], []
    for _ in range(TURNS):
        limit = limits.speed(case.limit)
        speeds.append(case.speed())
        ratios.append(speeds[-1] / limit)
    ratio = median(ratios)
    spread = (max(ratios) - min(ratios)) / ratio
    return Measured(isa, case.kernel, case.limit, ratio, spread, median(speeds))


def measure_all(isas: Iterable[str], only: str = "") -> Iterator[Measured]:
    """Each kernel whose name has `only` in it."""
    for isa in isas:
        limits = Limits(isa)
        for case in cases(isa, ROWS):
            if only in case.kernel:
                yield measure(isa, limits, case)


def line(found: Measured) -> str:
    return (
        f"{found.isa:<11} {found.kernel:<30} {found.ratio:>7.1%} of {found.limit:<5}"
        f" spread {found.spread:>6.1%} {found.speed / 1e9:>9.1f} G/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Each kernel beside the machine's limit.")
    parser.add_argument("--isa", action="append", choices=available_isas())
    parser.add_argument("--only", default="", help="kernels with this in their names")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    asked = parser.parse_args()
    found = []
    for each in measure_all(asked.isa or available_isas(), asked.only):
        found.append(each)
        if not asked.json:
            print(line(each), flush=True)
    print(json.dumps({"cpu": cpu_model(), "kernels": [asdict(each) for each in found]}))


if __name__ == "__main__":
    main()
