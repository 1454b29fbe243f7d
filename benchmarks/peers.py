"""Octavo and whatever other engines are installed, in turns on the same weights.

    python -m benchmarks.peers smollm2 OUT [--peers octavo,ik_llama.cpp] [--only decode,batch-16]
    python -m benchmarks.peers --from OUT/peers.json --from OTHER/peers.json OUT  # draws, no more

Writes OUT/peers.json, with every repetition and what the machine could do around it, and
OUT/peers.html, a page that opens offline. An engine is found by its flag, by the environment, or on
PATH; one that is not there is named, with how to get it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.peer.installed import NAMES, OURS, find, place_flag, place_variable
from benchmarks.peer.limits import limit, sizes_of
from benchmarks.peer.one import Missing, Model, Peer, Settings
from benchmarks.peer.results import Outcome, Results, from_json, together
from benchmarks.peer.turns import take_turns
from benchmarks.peer.workloads import QUICK, WORKLOADS, Workload
from octavo.atomic_file import write_whole
from octavo.bench.machine import Probe, cpu_model
from octavo.bench.native_probe import NativeProbe
from octavo.environment import find_home
from octavo.errors import OctavoError
from octavo.kernels import default_isa
from octavo.weights import library
from octavo.weights.model_header import ModelHeader, read_header


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parse(arguments)
    # So that engines end with this process, whoever ends it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if given.read:
            results = together([_read(path) for path in given.read])
            _write(results, given.out)
        else:
            for results in _measure(given):
                _write(results, given.out)
        _draw(results, given.out)
    except (OctavoError, OSError, ValueError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(given: argparse.Namespace) -> Iterator[Results]:
    header = read_header(library.find(given.model, home=find_home()).absolute())
    if not header.path.is_file():
        raise ValueError(f"{given.model}: expected a GGUF file, which most peers read")
    works = chosen(given.only, quick=given.quick, longest=header.config.context)
    settings = Settings(
        threads=given.threads,
        context=max(each.context for each in works),
        streams=max(len(each.requests) for each in works),
        seconds=given.seconds,
    )
    model = Model(header.path, given.directory, header.config.tokens)
    found = [find(name, given.places[name], model, settings) for name in given.peers]
    missing = {each.name: each.how for each in found if isinstance(each, Missing)}
    for name, how in missing.items():
        print(f"{name}: not installed: {how}")
    peers = [each for each in found if not isinstance(each, Missing)]
    if not peers:
        raise ValueError("none of these engines is here: expected others by --peers")
    probe = NativeProbe(default_isa(), given.threads)
    return run(header, peers, missing, works, probe, threads=given.threads, repeats=given.repeats)


def run(
    header: ModelHeader, peers: Sequence[Peer], missing: dict[str, str],
    works: Sequence[Workload], probe: Probe, *, threads: int, repeats: int,
) -> Iterator[Results]:  # fmt: skip
    """Measure, and close the peers. The results so far after each turn."""
    sizes = sizes_of(header)
    began, clock = datetime.now(UTC), time.monotonic()
    outcomes: dict[str, list[Outcome]] = {}
    try:
        for done in take_turns(
            peers, works, {each.name: limit(sizes, each) for each in works}, probe,
            repeats=repeats, say=lambda line: print(line, flush=True),
        ):  # fmt: skip
            outcomes[done[0].work] = done
            yield Results(
                machine=_machine(threads),
                model=_model(header),
                peers={each.name: {"version": each.version, "how": each.how} for each in peers},
                missing=missing,
                works=[each for each in works if each.name in outcomes],
                outcomes=[each for done in outcomes.values() for each in done],
                runs=[
                    {
                        "began": began.isoformat(timespec="seconds"),
                        "seconds": round(time.monotonic() - clock),
                        "repeats": repeats,
                    }
                ],
            )
    finally:
        for peer in peers:
            peer.close()


def chosen(only: str, *, quick: bool, longest: int) -> list[Workload]:
    """The workloads of these names or groups, else all, or the quick ones. ValueError for a name
    that is none, and for a workload that the model's context does not hold."""
    names = list(QUICK if quick else WORKLOADS)
    if only:
        asked = only.split(",")
        known = [*WORKLOADS, *dict.fromkeys(each.group for each in WORKLOADS.values())]
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(f"--only {unknown[0]}: expected some of {', '.join(known)}")
        names = [n for n, work in WORKLOADS.items() if n in asked or work.group in asked]
    works = [WORKLOADS[name] for name in names]
    for work in works:
        if work.context > longest:
            raise ValueError(
                f"{work.name} takes {work.context:,} tokens and the model has {longest:,}: "
                "expected others by --only"
            )
    return works


def _machine(threads: int) -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory / 1e9),
        "system": platform.platform(),
        "isa": default_isa(),
    }


def _model(header: ModelHeader) -> dict[str, object]:
    types = dict.fromkeys(each.type.name for each in header.tensors.values())
    size = header.path.stat().st_size
    return {"file": header.path.name, "bytes": size, "weights": "+".join(types)}


def _read(path: Path) -> Results:
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: expected a peers.json that an earlier run wrote") from None


def _write(results: Results, out: Path) -> None:
    write_whole(out / "peers.json", json.dumps(results.to_dict(), indent=1).encode())


def _draw(results: Results, out: Path) -> None:
    print(f"{out / 'peers.json'} has every repetition")
    if importlib.util.find_spec("plotly") is None:
        print(f"no page: pip install 'octavo[plot]', then --from {out / 'peers.json'} draws it")
        return
    from benchmarks.peer.report import page

    write_whole(out / "peers.html", page(results).encode())
    print(f"{out / 'peers.html'} shows them")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", nargs="?", help="a library name or a GGUF file")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    parser.add_argument(
        "--from", dest="read", action="append", type=Path, metavar="JSON",
        help="draw these results and measure nothing; several are put together",
    )  # fmt: skip
    parser.add_argument("--peers", type=_peers, default=list(NAMES), metavar="NAME,...",
                        help=f"some of {','.join(NAMES)}")  # fmt: skip
    parser.add_argument("--only", default="", metavar="NAME,...",
                        help=f"some of {','.join(WORKLOADS)}, or of their groups")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"only {','.join(QUICK)}")
    parser.add_argument("--repeats", type=_count, default=3)
    parser.add_argument("--threads", type=_count, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=300.0,
                        help="that one repetition may take; default 300")  # fmt: skip
    parser.add_argument(
        "--directory", type=Path, metavar="DIR",
        help="the same weights in Hugging Face's layout (octavo convert MODEL DIR --to hf)",
    )  # fmt: skip
    for name in NAMES[1:]:
        what = "DIR with its programs" if "llama" in name else "the interpreter that has it"
        variable = place_variable(name)
        parser.add_argument(place_flag(name), dest=name, metavar="PATH",
                            default=os.environ.get(variable),
                            help=f"{what}; ${variable}")  # fmt: skip
    given = parser.parse_args(arguments)
    if (given.model is None) == (given.read is None):
        parser.error("expected a model and OUT, or --from and OUT")
    given.places = {OURS: None, **{name: getattr(given, name) for name in NAMES[1:]}}
    return given


def _peers(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))  # each once: results are kept by name
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"no {unknown[0]!r}: expected some of {','.join(NAMES)}")
    return names


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
