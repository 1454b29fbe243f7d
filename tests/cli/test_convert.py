"""`octavo convert` and `octavo bench kv-heads` on a tiny model."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import pytest

from octavo.weights.model_header import read_header
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY


def test_a_file_becomes_a_directory_that_answers(octavo: Octavo, tmp_path: Path) -> None:
    to = str(tmp_path / "hf")
    found = octavo("convert", TINY, to, "--to", "hf", "--dtype", "f32", "--json")
    assert found.code == 0
    assert found.json["rounding"] == 0
    want = octavo("run", TINY, "hello", *GREEDY, "--json").json
    got = octavo("run", to, "hello", *GREEDY, "--json").json
    assert got["outputs"][0]["token_ids"] == want["outputs"][0]["token_ids"]


def test_averaged_heads_tell_what_was_lost(octavo: Octavo, tmp_path: Path) -> None:
    found = octavo("convert", TINY, str(tmp_path / "one"), "--kv-heads", "1", "--json").json
    assert (found["kv_heads_before"], found["kv_heads"]) == (2, 1)
    assert found["perplexity_before"] > 1
    assert found["perplexity"] != found["perplexity_before"]
    copied = octavo("convert", TINY, str(tmp_path / "four"), "--kv-heads", "4", "--json").json
    assert "perplexity" not in copied


def test_a_perplexity_that_is_no_number_is_none(
    octavo: Octavo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for perplexity in (nan, inf):
        monkeypatch.setattr("octavo.bench.kv_heads.perplexity", lambda *_, p=perplexity: p)
        to = ["--force", "--kv-heads", "1", "--json"]
        found = octavo("convert", TINY, str(tmp_path / "one"), *to).json
        assert found["perplexity"] is found["perplexity_before"] is None
    monkeypatch.setattr("octavo.bench.kv_heads._perplexity", lambda *_: nan)
    flags = ["--heads", "1", "--rounds", "1", "--threads", "1", "--json"]
    (measured,) = octavo("bench", "kv-heads", TINY, *flags).json["models"]
    assert measured["perplexity"] is None


def test_nothing_to_do_is_refused(octavo: Octavo, tmp_path: Path) -> None:
    there = tmp_path / "hf"
    assert octavo("convert", TINY, str(there)) == refused(
        "nothing to change: give --kv-heads, or --to hf for a GGUF file"
    )
    assert octavo("convert", TINY, str(there), "--to", "hf").code == 0
    assert octavo("convert", str(there), str(tmp_path / "x"), "--to", "hf") == refused(
        f"--to hf: {there} is such a directory already; --kv-heads changes it"
    )
    assert octavo("convert", TINY, str(there), "--kv-heads", "3") == refused(
        f"{there} is there already: name another directory, or give --force"
    )


def test_heads_side_by_side(octavo: Octavo) -> None:
    flags = ["--rounds", "1", "--threads", "1", "--json"]
    found = octavo("bench", "kv-heads", TINY, *flags).json
    by_heads = {each["kv_heads"]: each for each in found["models"]}
    assert [*by_heads] == [read_header(Path(TINY)).config.heads, 2, 1]
    assert [each["kind"] for each in by_heads.values()] == ["MHA", "GQA-2", "MQA"]
    assert by_heads[4]["perplexity"] == by_heads[2]["perplexity"] != by_heads[1]["perplexity"]
    assert by_heads[4]["window_bytes"] == 2 * by_heads[2]["window_bytes"]
    assert by_heads[1]["sequences"] > by_heads[4]["sequences"]
    assert octavo("bench", "kv-heads", TINY, "--heads", "two") == refused(
        "--heads two: expected whole numbers, as in 9,3,1"
    )
