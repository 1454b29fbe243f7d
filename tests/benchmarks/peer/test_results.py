"""What is kept of a run: medians, JSON and back, and runs put together."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.peer.results import Outcome, from_json, together
from tests.benchmarks.peer.fakes import BATCH, DECODE, results, sampled

FIRST = results(
    sampled(DECODE, "octavo", 60, 80, 70), Outcome(DECODE.name, "vllm", (), "failed: x"),
    works=[DECODE], peers=["octavo", "vllm"],
)  # fmt: skip
SECOND = results(
    sampled(DECODE, "octavo", 90), sampled(BATCH, "octavo", 200, 300),
    works=[DECODE, BATCH], peers=["octavo"],
)  # fmt: skip


def test_medians_and_spread_stand_in_the_json_and_it_is_read_back() -> None:
    data = json.loads(json.dumps(FIRST.to_dict()))
    ours = data["outcomes"][0]
    assert (ours["median"], ours["least"], ours["most"]) == (70, 60, 80)
    assert ours["spread"] == pytest.approx(20 / 70)
    assert ours["of_limit"] == pytest.approx(0.7)
    assert len(ours["samples"]) == 3
    assert from_json(data).to_dict() == FIRST.to_dict()


def test_a_limit_is_the_median_of_all_that_was_measured_beside_it() -> None:
    limits = [sampled(DECODE, "octavo", 1, limit=3), sampled(DECODE, "vllm", 1, 1, limit=5)]
    assert results(*limits, works=[DECODE], peers=[]).limit(DECODE.name) == 5
    assert FIRST.limit("none") is None


def test_runs_are_put_together() -> None:
    both = together([FIRST, replace(SECOND, missing={"vllm": "pip", "openvino": "pip"})])
    ours = both.of(DECODE.name, "octavo")
    assert [each.speed for each in ours.samples] == [60, 80, 70, 90]
    assert both.of(DECODE.name, "vllm").why == "failed: x"
    assert [work.name for work in both.works] == ["decode-8", "batch-3"]
    assert both.missing == {"openvino": "pip"}  # the other was there once
    assert len(both.runs) == 2


def test_works_of_a_figure_stand_together_however_they_were_measured() -> None:
    deeper = replace(DECODE, name="decode-9")
    later = results(sampled(deeper, "octavo", 50), works=[deeper], peers=["octavo"])
    both = together([SECOND, later])
    assert [work.name for work in both.works] == ["decode-8", "decode-9", "batch-3"]


def test_a_version_that_one_run_did_not_learn_is_the_other_s() -> None:
    unknown = replace(FIRST, peers={"octavo": {"version": "", "how": "made up"}})
    assert together([unknown, SECOND]).peers["octavo"]["version"] == "octavo 1"


def test_what_does_not_belong_together_is_refused() -> None:
    other = replace(SECOND, machine={**SECOND.machine, "cpu": "Another"})
    with pytest.raises(ValueError, match=r"another machine .* cpu is 'A CPU' and 'Another'"):
        together([FIRST, other])
    other = replace(SECOND, model={**SECOND.model, "bytes": 7})
    with pytest.raises(ValueError, match=r"another model .* bytes is 100000000 and 7"):
        together([FIRST, other])
    other = replace(SECOND, peers={"octavo": {"version": "2", "how": ""}})
    with pytest.raises(ValueError, match=r"two versions of octavo .* 2 and octavo 1"):
        together([FIRST, other])
