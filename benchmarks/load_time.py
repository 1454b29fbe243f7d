"""How long a model takes to load: `LLM(model)`, a new process each time, files in the page cache.

    python -m benchmarks.load_time DIR DIR:w8 smollm2 [--rounds 5] [--against TREE]

A case is a model, and after a colon what `weights` is. Cases take turns; the first round fills
caches and is not counted. TREE is another checkout with its core built, which takes turns too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).resolve().parents[1]
_RUN = """
import json, sys, time
began = time.perf_counter()
from octavo import LLM
imported = time.perf_counter()
llm = LLM(sys.argv[1], weights=sys.argv[2] or None)
loaded, cpu = time.perf_counter(), time.process_time()
print(json.dumps([imported - began, loaded - imported, cpu]))
"""


class Case(NamedTuple):
    model: str
    weights: str
    tree: Path

    @property
    def name(self) -> str:
        weights = f" {self.weights}" if self.weights else ""
        return f"{self.model}{weights}" + ("" if self.tree == _HERE else f" ({self.tree})")


class Load(NamedTuple):
    """Seconds; of all cores together for `cpu`, which counts the import too."""

    imported: float
    loaded: float
    cpu: float


def load(case: Case) -> Load:
    run = subprocess.run(
        [sys.executable, "-c", _RUN, case.model, case.weights],
        env={**os.environ, "PYTHONPATH": str(case.tree / "src")},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Load(*json.loads(run.stdout))


def report(case: Case, loads: list[Load]) -> str:
    least = [min(column) for column in zip(*loads, strict=True)]
    every = ", ".join(f"{each.loaded:.2f}" for each in loads)
    return (
        f"{case.name}: loaded in {least[1]:.2f} s (of {every}), import {least[0]:.2f} s, "
        f"CPU {least[2]:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="MODEL[:WEIGHTS]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, metavar="TREE")
    given = parser.parse_args()
    trees = [_HERE] if given.against is None else [_HERE, given.against.resolve()]
    split = [case.partition(":") for case in given.cases]
    cases = [Case(model, weights, tree) for model, _, weights in split for tree in trees]
    done: dict[Case, list[Load]] = {case: [] for case in cases}
    for turn in range(given.rounds + 1):
        for case in cases:
            found = load(case)
            if turn:
                done[case].append(found)
    for case, loads in done.items():
        print(report(case, loads))


if __name__ == "__main__":
    main()
