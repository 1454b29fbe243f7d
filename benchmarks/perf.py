"""No kernel has become much slower: each ratio to its limit against the one recorded for this CPU.

    python -m benchmarks.perf [--recorded FILE]

A short form of benchmarks.kernels. It ends with 1 only if a kernel stays below 65 % of the recorded
ratio when it is measured again and again, for some minutes: who shares the machine's caches may
stay as long. A kind of CPU, a level or a kernel that has no record gets one. To record anew, delete
the entry from the file. Packing rows is not judged: its limit is unsteady.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel_cases import Case, Limits, cases
from benchmarks.kernels import measure
from benchmarks.recorded_ratios import RECORDED, Low, Ratios, Recorded, cpu_family, too_low
from octavo.kernels import available_isas

ROWS = (1, 6, 48)
PAUSES = (1, 1, 1, 5, 10, 20, 30, 30, 60, 60, 60)  # seconds before what is too slow is tried again


@dataclass
class Kernel:
    """One kernel of a level, the ratios recorded there, and the best that was measured."""

    isa: str
    limits: Limits
    case: Case
    recorded: Ratios
    best: float = 0.0

    def measure(self) -> None:
        self.best = max(self.best, measure(self.isa, self.limits, self.case).ratio)

    def low(self) -> list[Low]:
        return too_low({self.case.kernel: self.best}, self.recorded)


def measure_level(recorded: Recorded, family: str, isa: str) -> list[Kernel]:
    limits, known = Limits(isa), recorded.of(family, isa)
    judged = [case for case in cases(isa, ROWS) if case.limit != "read"]
    kernels = [Kernel(isa, limits, case, known) for case in judged]
    for kernel in kernels:
        kernel.measure()
    new = recorded.add(family, isa, {each.case.kernel: each.best for each in kernels})
    print(f"{isa}: {len(kernels)} kernels, {len(new)} recorded", flush=True)
    return kernels


def main() -> None:
    parser = argparse.ArgumentParser(description="Kernels against their recorded ratios.")
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    recorded, family = Recorded(parser.parse_args().recorded), cpu_family()
    print(f"perf: {family}, one thread, ratios to the limits of the same turns")
    kernels = [each for isa in available_isas() for each in measure_level(recorded, family, isa)]
    slow = [kernel for kernel in kernels if kernel.low()]
    for pause in PAUSES:
        if not slow:
            break
        print(f"{len(slow)} too slow, measured again in {pause} s", flush=True)
        time.sleep(pause)
        for kernel in slow:
            kernel.measure()
        slow = [kernel for kernel in slow if kernel.low()]
    for kernel in slow:
        for low in kernel.low():
            print(f"{kernel.isa} {low}")
    print(f"{len(slow)} too slow")
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
