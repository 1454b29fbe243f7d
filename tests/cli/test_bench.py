"""`octavo bench` on a tiny model and a scripted probe: the JSON's names, and figures that agree."""

from __future__ import annotations

import pytest

from octavo.bench.machine import Reading
from octavo.kernels import default_isa
from tests.cli.result import Octavo, refused
from tests.cli.tiny_model import TINY

KEYS = [
    "tokens_per_second", "spread", "bytes_per_token", "read_bandwidth_gbps", "bandwidth_fraction",
    "gops", "peak_gops", "compute_fraction", "threads", "isa", "model", "weights", "context",
]  # fmt: skip


class FixedProbe:
    def read(self) -> Reading:
        return Reading(bytes_per_second=50e9, ops_per_second=2000e9)


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.cli.bench_run.open_probe", lambda machine: FixedProbe())


@pytest.mark.parametrize(
    ("kind", "flags"),
    [("decode", ["--context", "20", "--tokens", "4"]), ("prefill", ["--context", "20"])],
)
def test_json_has_every_key_and_the_fractions_follow_from_the_figures(
    octavo: Octavo, kind: str, flags: list[str]
) -> None:
    result = octavo("bench", kind, TINY, *flags, "--rounds", "1", "--threads", "2", "--json")
    found = result.json
    assert [key for key in KEYS if key not in found] == []
    assert (found["bench"], found["model"], found["weights"]) == (kind, TINY, "F32")
    assert (found["threads"], found["isa"], found["context"]) == (2, default_isa(), 20)
    assert (found["read_bandwidth_gbps"], found["peak_gops"], found["spread"]) == (50, 2000, 0)
    speed = found["tokens_per_second"]
    assert speed > 0
    assert found["bandwidth_fraction"] == pytest.approx(speed * found["bytes_per_token"] / 50e9)
    assert found["compute_fraction"] == pytest.approx(found["gops"] / 2000)


def test_the_text_names_machine_model_rounds_and_shares(octavo: Octavo) -> None:
    lines = octavo("bench", "decode", TINY, "--tokens", "2", "--context", "9", "--rounds", "2").out
    first, second, *rounds, decode, bandwidth, compute, roofline = lines.splitlines()
    assert default_isa() in first
    assert second == f"{TINY}, weights F32: 2 new tokens after 9"
    assert [line.split(":")[0] for line in rounds] == ["  round 1", "  round 2"]
    assert all("50 GB/s read, 2,000 GOP/s integer peak" in line for line in rounds)
    assert decode.startswith("decode     ")
    assert "of 50 GB/s" in bandwidth
    assert "of 2,000 GOP/s" in compute
    assert roofline.endswith(" %")


@pytest.mark.parametrize(
    ("kind", "flag"), [("depth", "--depth"), ("batch", "--context=20 --streams")]
)
def test_a_sweep_has_a_point_for_each_size_beside_the_limits(
    octavo: Octavo, kind: str, flag: str
) -> None:
    sizes = [2, 5, 3]
    flags = [text for each in sizes for text in (*flag.split(), str(each))]
    result = octavo("bench", kind, TINY, *flags, "--tokens", "9", "--rounds", "2", "--json")
    found = result.json
    assert (found["bench"], found["model"], found["isa"]) == (kind, TINY, default_isa())
    assert [point[kind] for point in found["points"]] == sizes
    first = found["points"][0]
    for point in found["points"]:
        speed, nbytes = point["tokens_per_second"], point["bytes_per_token"]
        assert len(point["rounds"]) == 2
        assert point["speed_ratio"] == pytest.approx(speed / first["tokens_per_second"])
        assert point["bytes_ratio"] == pytest.approx(nbytes / first["bytes_per_token"])
        assert point["bandwidth_fraction"] == pytest.approx(speed * nbytes / 50e9, rel=0.5)
        assert point["peak_gops"] == 2000
    ratios = [point["bytes_ratio"] for point in found["points"]]
    # More tokens before it cost more, more streams share the weights.
    assert (ratios[1] > ratios[2] > 1) if kind == "depth" else (ratios[1] < ratios[2] < 1)


def test_the_text_of_a_sweep_is_a_line_a_round_and_a_table(octavo: Octavo) -> None:
    flags = ["--streams", "1", "--streams", "2", "--context", "4", "--tokens", "6"]
    lines = octavo("bench", "batch", TINY, *flags, "--rounds", "2").out.splitlines()
    assert lines[1] == f"{TINY}, weights F32: 6 new tokens after 4 in each stream"
    begins = ["batch 1, round 1", "batch 2, round 1", "batch 1, round 2", "batch 2, round 2"]
    assert [line.split(":")[0] for line in lines[2:6]] == begins
    assert lines[6].split()[:3] == ["batch", "tok/s", "spread"]
    assert [line.split()[0] for line in lines[7:]] == ["1", "2"]
    assert lines[7].split()[-2:] == ["1x", "1x"]


def test_streams_that_never_ran_at_once_have_no_figure(octavo: Octavo) -> None:
    flags = ["--streams", "2", "--context", "8", "--tokens", "2", "--max-batch-tokens", "8"]
    result = octavo("bench", "batch", TINY, *flags, "--rounds", "1")
    assert result.code == 2
    assert result.err.startswith("octavo: --streams 2: no step had a token of each; expected more")


def test_kv_compares_the_same_answer_with_and_without_the_cache(octavo: Octavo) -> None:
    found = octavo("bench", "kv", TINY, "--context", "4", "--tokens", "8", "--json").json
    assert found["same_tokens"] is True
    without, cached = found["without_cache"]["seconds"], found["with_cache"]["seconds"]
    assert found["ratio"] == pytest.approx(without / cached)
    assert found["new_tokens"] == 8
    # The same prompts with and without the prefix cache.
    flags = ["--shared", "64", "--own", "8", "--prompts", "4", "--tokens", "3", "--rounds", "2"]
    found = octavo("bench", "prefix", TINY, *flags, "--json").json
    assert found["same_tokens"] is True
    assert found["found"] == 3 * 64 / (4 * 72)  # all but the first find the shared tokens
    assert len(found["ratios"]) == 2
    assert min(found["ratios"]) <= found["ratio"] <= max(found["ratios"])


@pytest.mark.parametrize("kind", ["kv", "prefix"])
@pytest.mark.parametrize("flag", ["--prefix-cache", "--no-kv-cache"])
def test_which_caches_are_compared_is_no_choice(octavo: Octavo, kind: str, flag: str) -> None:
    result = octavo("bench", kind, "m", flag)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"octavo: No such option {flag!r}")


def test_counts_out_of_range_are_refused(octavo: Octavo) -> None:
    for kind, flag, value, least in [
        ("prefix", "--own", 0, 1), ("decode", "--tokens", 1, 2), ("prefill", "--context", 0, 1),
        ("decode", "--warmups", -1, 0), ("depth", "--depth", 0, 1), ("batch", "--streams", 0, 1),
    ]:  # fmt: skip
        complaint = f"{flag} {value}: expected at least {least}"
        assert octavo("bench", kind, "m", flag, str(value)) == refused(complaint)
