"""How long a start takes: from the start of the process to the first text of an answer.

    python -m benchmarks.cold_start [smollm2] [--rounds 15] [--against TREE] [--json]

A round is `octavo run MODEL PROMPT --max-tokens 1` in a new process, files in the page cache, until
the first byte of the answer comes; then the same where `start_parts` counts what its parts take.
The first round fills caches (bytecode and packed weights too) and is not counted. TREE is another
checkout with its core built, which takes turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
_PROMPT = "A sheet of paper that is folded three times has eight leaves, and so it"  # 16 tokens
_CASES = {"raw": (_PROMPT, "--raw"), "chat": (_PROMPT,)}  # a chat takes Jinja, and its template


def environ(tree: Path) -> dict[str, str]:
    """Return the environment of a tree's processes, of which the first one writes the bytecode that
    an installed wheel has."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{_HERE}"}


def first_text(tree: Path, arguments: Sequence[str]) -> float:
    """Return the milliseconds until the first byte of the answer."""
    command = [sys.executable, "-m", "octavo", "run", *arguments]
    began = time.perf_counter()
    with subprocess.Popen(command, env=environ(tree), stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - began
        process.stdout.read()
    if process.returncode or not first:
        raise SystemExit(f"{' '.join(command)} failed: {process.returncode}")
    return took * 1e3


def parts(tree: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Return milliseconds by part, and "until the first text" of the same process."""
    command = [sys.executable, "-m", "benchmarks.start_parts", repr(time.perf_counter())]
    done = subprocess.run(
        [*command, "run", *arguments], env=environ(tree), check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(model: str, trees: Sequence[Path], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Measure the trees in turns. Return milliseconds of each round, by case and tree, then by what
    was measured."""
    given = {
        (f"{name}" if tree == _HERE else f"{name} ({tree})"): (
            tree,
            [model, *prompt, "--max-tokens", "1", "--quiet"],
        )
        for name, prompt in _CASES.items()
        for tree in trees
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in given}
    for turn in range(rounds + 1):
        for name, (tree, arguments) in given.items():
            row = {"first text": first_text(tree, arguments), **parts(tree, arguments)}
            for what, value in row.items() if turn else ():
                found[name].setdefault(what, []).append(value)
    return found


def report(found: dict[str, dict[str, list[float]]]) -> str:
    lines = []
    for name, rows in found.items():
        lines.append(f"{name}: milliseconds, median (least to most) of {len(rows['first text'])}")
        for what, values in rows.items():
            middle = statistics.median(values)
            lines.append(f"  {what:22} {middle:7.1f}  ({min(values):.1f} to {max(values):.1f})")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", type=Path, metavar="TREE")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    trees = [_HERE] if given.against is None else [_HERE, given.against.resolve()]
    found = measure(given.model, trees, given.rounds)
    print(json.dumps(found) if given.json else report(found))


if __name__ == "__main__":
    main()
