"""python -m benchmarks.paper_figures: what papers report of their caches, and the same of ours.

Deterministic: nothing is timed and no model runs. Requests go through the real engine, scheduler
and block pool, and ours is read from their records. Exits with 1 if a goal is not met.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import data, hit_rates, policy, residents, sharing, waste
from benchmarks.figure import Figure, table

GROUPS: Mapping[str, Callable[[Path], list[Figure]]] = {
    "waste": waste.figures,  # minutes
    "residents": residents.figures,
    "sharing": sharing.figures,
    "hits": hit_rates.figures,
    "policy": policy.figures,
}


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    found: dict[str, list[Figure]] = {}
    for name in options.only:
        found[name] = GROUPS[name](options.data)
        if not options.json:
            print(f"{name}: {_headline(GROUPS[name])}\n\n{table(found[name])}\n", flush=True)
    if options.json:
        print(json.dumps({name: [asdict(f) for f in figures] for name, figures in found.items()}))
    return int(any(f.met is False for figures in found.values() for f in figures))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_figures", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=data.folder(), metavar="DIR",
        help="the folder of traces, questions and dialogues (benchmarks/README.md); $OCTAVO_DATA",
    )  # fmt: skip
    parser.add_argument(
        "--only", type=_groups, default=list(GROUPS), metavar="GROUP,...",
        help=f"some of {','.join(GROUPS)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("where are the public data? Give --data DIR or set OCTAVO_DATA")
    if not options.data.is_dir():
        parser.error(f"--data: there is no folder {options.data}: give one with the files named in "
                     "benchmarks/data.py")  # fmt: skip
    return options


def _groups(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no {unknown[0]!r}: expected some of {','.join(GROUPS)}")
    return names


def _headline(figures: Callable[[Path], list[Figure]]) -> str:
    """The first sentence of the module that measures."""
    text = sys.modules[figures.__module__].__doc__ or ""
    return " ".join(text.split("\n\n", 1)[0].split())


if __name__ == "__main__":
    sys.exit(main())
