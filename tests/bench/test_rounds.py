"""Medians and shares of the roofline, with a machine that changes its mind."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.bench.machine import Reading, cpu_model
from octavo.bench.rounds import Round, TokenCost, measure, summarize


class ScriptedProbe:
    def __init__(self, *bandwidths: float) -> None:
        self.left = list(bandwidths)

    def read(self) -> Reading:
        bandwidth = self.left.pop(0)
        return Reading(bandwidth, 10 * bandwidth)


def test_warm_ups_are_not_measured_and_probes_stand_around_each_round() -> None:
    seen = []

    def run(index: int) -> float:
        seen.append(index)
        return 100.0 + index

    probe = ScriptedProbe(10, 20, 40)
    rounds = list(measure(run, probe, warmups=2, rounds=2))
    assert seen == [0, 1, 2, 3]
    assert rounds == [Round(102.0, Reading(15, 150)), Round(103.0, Reading(30, 300))]
    assert probe.left == []


def test_a_round_is_shown_before_the_next_one_runs() -> None:
    seen = []
    rounds = measure(lambda i: seen.append(i) or 1.0, ScriptedProbe(1, 1, 1), warmups=0, rounds=2)
    next(rounds)
    assert seen == [0]


def test_the_summary_is_of_medians_and_each_share_is_of_its_own_round() -> None:
    # A machine that halves its speed halves both; the share stays 3/4 but for one bad round.
    rounds = [
        Round(300.0, Reading(400e9, 8000e9)),
        Round(150.0, Reading(200e9, 4000e9)),
        Round(100.0, Reading(400e9, 8000e9)),
    ]
    found = summarize(rounds, TokenCost(bytes_per_token=1e9, ops_per_token=4e9))
    assert found.tokens_per_second == 150
    assert found.spread == pytest.approx((300 - 100) / 150)
    assert found.read_bandwidth_gbps == 400
    assert found.bandwidth_fraction == pytest.approx(0.75)
    assert found.gops == 600
    assert found.peak_gops == 8000
    assert found.compute_fraction == pytest.approx(0.15)
    assert found.roofline_fraction == pytest.approx(0.75)
    assert found.rounds == (300, 150, 100)


def test_the_roofline_is_whichever_limit_is_nearer() -> None:
    rounds = [Round(10.0, Reading(100e9, 100e9))]
    assert summarize(rounds, TokenCost(1e9, 8e9)).roofline_fraction == pytest.approx(0.8)
    assert summarize(rounds, TokenCost(5e9, 1e9)).roofline_fraction == pytest.approx(0.5)


def test_the_cpu_has_the_name_the_system_gives_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\nmodel name\t: other\n")
    assert cpu_model(cpuinfo) == "Example CPU @ 3 GHz"
    cpuinfo.write_text("processor\t: 0\nCPU part\t: 0xd4f\n")
    assert cpu_model(cpuinfo) == cpu_model(tmp_path / "absent") != ""
