"""One model under measurement: what every verb of `octavo bench` shares, and what it prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from octavo.bench import workloads
from octavo.bench.machine import Machine, Probe, cpu_model
from octavo.bench.rounds import Round, Summary, TokenCost, measure, summarize
from octavo.bench.sweep import Point, sweep
from octavo.cli.figures import columns, number, pairs, percent, size
from octavo.cli.screen import Screen
from octavo.errors import UsageError, counted
from octavo.planning.memory import page_formats
from octavo.weights.model_header import read_header
from octavo.weights.packed_formats import packed_bytes

if TYPE_CHECKING:
    from octavo.serving.llm import LLM

# Nobody waits beside these streams, so a step may last as long as its rows take.
WHOLE_STEPS: dict[str, object] = {"step_ms": None}


class Bench:
    """One model under measurement on one machine."""

    def __init__(self, llm: LLM, model: str, screen: Screen) -> None:
        self._screen = screen
        self._model = model
        self._weights = llm.config.weights or "+".join(llm.info.tensor_types)
        self.sizes = _sizes(llm)
        self._machine = Machine(cpu_model(), llm.info.isa, llm.info.threads)
        self._probe = open_probe(self._machine)

    def run(
        self,
        kind: str,
        what: str,
        run_round: Callable[[int], float],
        token_cost: TokenCost,
        *,
        context: int,
        rounds: int,
        warmups: int,
    ) -> None:
        """Measure, print as it goes, then the medians."""
        self._begin(what)
        done: list[Round] = []
        for each in measure(run_round, self._probe, warmups=warmups, rounds=rounds):
            done.append(each)
            self._screen.say(_round_line(len(done), each))
        summary = summarize(done, token_cost)
        self._screen.say(_summary_text(kind, summary, token_cost))
        self._screen.result({**self._facts(kind), "context": context, **asdict(summary)})

    def sweep(self, kind: str, what: str, points: list[Point], *, rounds: int) -> None:
        """Measure one figure at several sizes in turns, each beside the limits of its rounds."""
        self._begin(what)
        done: list[list[Round]] = [[] for _ in points]
        for index, each in sweep(points, self._probe, rounds):
            done[index].append(each)
            name = f"{kind} {points[index].size:,}"
            self._screen.say(f"{name}, {_round_line(len(done[index]), each).strip()}")
        found = [summarize(d, p.cost) for d, p in zip(done, points, strict=True)]
        self._screen.say(_sweep_text(kind, points, found))
        rows = [
            {kind: point.size, **_against(found[0], each), **asdict(each)}
            for point, each in zip(points, found, strict=True)
        ]
        self._screen.result({**self._facts(kind), "points": rows})

    def _begin(self, what: str) -> None:
        machine = self._machine
        self._screen.say(f"{machine.cpu}, {machine.isa}, {counted(machine.threads, 'thread')}")
        self._screen.say(f"{self._model}, weights {self._weights}: {what}")

    def _facts(self, kind: str) -> dict[str, object]:
        facts = {"bench": kind, "model": self._model, "weights": self._weights}
        return {**facts, **asdict(self._machine)}


def open_probe(machine: Machine) -> Probe:
    from octavo.bench.native_probe import NativeProbe  # needs the compiled core; tests have none

    return NativeProbe(machine.isa, machine.threads)


def _sizes(llm: LLM) -> workloads.Sizes:
    header = read_header(llm.info.path)
    in_memory = packed_bytes(header, llm.program.weights(), llm.config.weights)
    return workloads.Sizes(llm.program, in_memory, page_formats(llm.program, llm.config))


def check_counts(**counts: tuple[int, int]) -> None:
    for name, (value, least) in counts.items():
        if value < least:
            raise UsageError(f"--{name} {value}: expected at least {least}")


def _round_line(index: int, each: Round) -> str:
    reading = each.reading
    return (
        f"  round {index}: {number(each.tokens_per_second)} tok/s; around it "
        f"{number(reading.bytes_per_second / 1e9)} GB/s read, "
        f"{number(reading.ops_per_second / 1e9)} GOP/s integer peak"
    )


def _summary_text(kind: str, found: Summary, token_cost: TokenCost) -> str:
    used = found.tokens_per_second * token_cost.bytes_per_token / 1e9
    rows = [
        (kind, f"{number(found.tokens_per_second)} tok/s, spread {percent(found.spread)}"),
        (
            "bandwidth",
            f"{size(found.bytes_per_token)} a token, {number(used)} GB/s: "
            f"{percent(found.bandwidth_fraction)} of {number(found.read_bandwidth_gbps)} GB/s",
        ),
        (
            "compute",
            f"{number(found.gops)} GOP/s: "
            f"{percent(found.compute_fraction)} of {number(found.peak_gops)} GOP/s",
        ),
        ("roofline", percent(found.roofline_fraction)),
    ]
    return pairs(rows)


def _against(first: Summary, each: Summary) -> dict[str, float]:
    """Speed and bytes a token beside those of the first size: how far these explain that."""
    return {
        "speed_ratio": each.tokens_per_second / first.tokens_per_second,
        "bytes_ratio": each.bytes_per_token / first.bytes_per_token,
    }


def _sweep_text(kind: str, points: list[Point], found: list[Summary]) -> str:
    rows = [[kind, "tok/s", "spread", "a token", "bandwidth", "compute", "speed", "bytes"]]
    for point, each in zip(points, found, strict=True):
        ratios = [f"{number(ratio)}x" for ratio in _against(found[0], each).values()]
        shares = [percent(each.bandwidth_fraction), percent(each.compute_fraction)]
        speed = [number(each.tokens_per_second), percent(each.spread)]
        rows.append(
            [f"{point.size:,}", *speed, size(each.bytes_per_token), *shares, *ratios],
        )
    return columns(rows, indent="")
