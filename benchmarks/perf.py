"""No kernel has become much slower: each ratio to its limit against the one recorded for this CPU.

    python -m benchmarks.perf [--recorded FILE]

A short form of benchmarks.kernels. It ends with 1 only if a kernel stays below 65 % of the recorded
ratio when it is measured again and again; a kind of CPU, a level or a kernel that has no record
gets one. To record anew, delete the entry from the file. Packing rows is not judged: its
limit is unsteady.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.kernel_cases import Limits, cases
from benchmarks.kernels import measure
from benchmarks.recorded_ratios import RECORDED, Low, Recorded, cpu_family, too_low
from octavo.kernels import available_isas

ROWS = (1, 6, 48)
TRIES = 6  # another process may have had the core
PAUSE_SECONDS = 0.5  # before another try, so that it may be gone


def check_level(recorded: Recorded, family: str, isa: str) -> list[Low]:
    limits, known, found, low = Limits(isa), recorded.of(family, isa), {}, []
    for case in cases(isa, ROWS):
        if case.limit == "read":  # moves with where memory lies: 4 and 8 % in two runs
            continue
        ratios: list[float] = []
        for _ in range(TRIES):
            ratios.append(measure(isa, limits, case).ratio)
            found[case.kernel] = max(ratios)
            below = too_low({case.kernel: max(ratios)}, known)
            if not below:
                break
            time.sleep(PAUSE_SECONDS)
        low += below
    new = recorded.add(family, isa, found)
    print(f"{isa}: {len(found)} kernels, {len(low)} too slow, {len(new)} recorded", flush=True)
    return low


def main() -> None:
    parser = argparse.ArgumentParser(description="Kernels against their recorded ratios.")
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    recorded, family = Recorded(parser.parse_args().recorded), cpu_family()
    print(f"perf: {family}, one thread, ratios to the limits of the same turns")
    low = [(isa, each) for isa in available_isas() for each in check_level(recorded, family, isa)]
    for isa, each in low:
        print(f"{isa} {each}")
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main()
