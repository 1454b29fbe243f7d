"""`octavo simulate`: the table, the JSON, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.result import Octavo, Result, refused


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A prompt of two blocks used twice, ten others used once, and the first again."""
    prompts = [0, 0, *range(1, 11), 0]
    lines = [
        {"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [2 * p, 2 * p + 1]}
        for p in prompts
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return str(path)


def table(result: Result) -> list[str]:
    """Its lines, T for each time: microseconds are columns 4 and 7 of the lines of numbers."""
    text = re.sub(r"(\d+\.\d{3} +\d+) +[\d.]+", r"\1 T", result.out)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_line_for_each_size_with_lru_beside_the_policy(octavo: Octavo, trace: str) -> None:
    result = octavo("simulate", trace, "--blocks", "10", "--blocks", "22")
    assert result.code == 0
    assert table(result) == [
        "13 requests, 13,312 input tokens",
        "BLOCKS LRU hits LRU evicted LRU us/block COST hits COST evicted COST us/block GAIN",
        "10 0.077 14 T 0.154 12 T +100.0 %",
        "22 0.154 0 T 0.154 0 T +0.0 %",
        "unlimited 0.154 0 T 0.154 0 T +0.0 %",
    ]
    alone = octavo("simulate", trace, "--blocks", "10", "--policy", "cost")
    assert table(alone)[1:] == [
        "BLOCKS COST hits COST evicted COST us/block",
        "10 0.154 12 T",
        "unlimited 0.154 0 T",
    ]


def test_the_same_as_json(octavo: Octavo, trace: str) -> None:
    result = octavo("simulate", trace, "--blocks", "10", "--policy", "lru", "--json")
    assert len(result.out.splitlines()) == 1
    found = result.json
    assert (found["trace"], found["requests"], found["block_tokens"]) == (trace, 13, 512)
    limited, unlimited = found["runs"]
    assert (limited["policy"], limited["blocks"], unlimited["blocks"]) == ("lru", 10, None)
    assert (limited["hit_tokens"], limited["input_tokens"]) == (1024, 13312)
    assert limited["hit_rate"] == pytest.approx(1 / 13)
    assert limited["evictions"] == 14
    # 2 matched; 24 taken and 24 registered; 26 freed; 14 evicted.
    assert limited["block_operations"] == 2 + 24 + 24 + 26 + 14
    assert limited["us_per_block_operation"] > 0
    assert (unlimited["hit_tokens"], unlimited["evictions"]) == (2048, 0)


def test_without_hits_there_is_no_gain_to_tell(octavo: Octavo, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [0]}\n')
    result = octavo("simulate", str(path), "--blocks", "1")
    assert [each.split()[-1] for each in result.out.splitlines()[2:]] == ["-", "-"]


def test_wrong_flags_are_refused_in_one_line(octavo: Octavo, trace: str) -> None:
    for flags, complaint in [
        ([], "Missing option '--blocks'"),
        (["--blocks", "0"], "--blocks 0: expected at least 1"),
        (["--blocks", "1"], "1 block: a request of the trace has 2"),
        (["--blocks", "9", "--policy", "lur"], "unknown policy 'lur'; did you mean lru?"),
    ]:
        result = octavo("simulate", trace, *flags)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert result.err.startswith(f"octavo: {complaint}")


def test_a_trace_that_cannot_be_read_is_an_error_that_says_why(octavo: Octavo, trace: str) -> None:
    with Path(trace).open("a") as lines:
        lines.write("no JSON\n")
    complaint = f"{trace}, line 14: not JSON: Expecting value at character 1"
    assert octavo("simulate", trace, "--blocks", "9") == refused(complaint, code=1)
    result = octavo("simulate", f"{trace}.none", "--blocks", "9")
    assert result.code == 1
    assert "No such file or directory" in result.err
