"""`octavo run` on a real engine and a tiny model: what goes where, and what the flags do."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from math import inf

import pytest

from octavo.cli.screen import printable
from octavo.request import RequestOptions, RequestOutput
from tests.cli.fake_llm import STATS, FakeLLM
from tests.cli.result import GREEDY, Octavo, Result, refused
from tests.cli.tiny_model import TINY

FIGURES = re.compile(
    r"\[[\d,]+ prompt tokens, [\d,]+ cached, [\d.,]+ tok/s · [\d,]+ new"
    r"(, [\d.,]+ tok/s)? · KV [\d.]+ KiB\]\n"
)


def test_the_answer_is_on_stdout_and_the_figures_on_stderr(octavo: Octavo) -> None:
    result = octavo("run", TINY, "hello", *GREEDY)
    found = octavo("run", TINY, "hello", *GREEDY, "--json")
    assert result.code == 0
    assert result.out == printable(found.json["outputs"][0]["text"]) + "\n"
    assert FIGURES.fullmatch(result.err)
    assert octavo("run", TINY, "hello", *GREEDY, "--quiet") == Result(0, result.out, "")


def test_json_is_one_line_with_the_names_of_request_output(octavo: Octavo) -> None:
    result = octavo("run", TINY, "hello", *GREEDY, "--json", "--logprobs", "2")
    assert result.out.count("\n") == 1
    found = result.json
    names = ["prompt_token_ids", "outputs", "usage", "cache", "metrics", "seed"]
    assert list(found) == [
        *names,
        "prompt_logprobs",
        "error",
        "sampling",
        "embedding",
        "error_type",
        "sampling_from",
    ]
    assert (found["prompt_logprobs"], found["error"]) == (None, None)
    assert found["usage"] == {"prompt_tokens": 24, "completion_tokens": 8, "cached_tokens": 0}
    assert found["outputs"][0]["finish_reason"] == "length"
    assert len(found["outputs"][0]["logprobs"]) == 8
    assert len(found["outputs"][0]["logprobs"][0]["top"]) == 2


def test_a_deadline_is_passed_on_and_said(octavo: Octavo) -> None:
    class Late(FakeLLM):
        def _output(self, prompt: list[int]) -> RequestOutput:
            done = super()._output(prompt)
            return replace(done, outputs=(replace(done.outputs[0], finish_reason="deadline"),))

    llm = Late(["Hel"])
    result = octavo("run", llm, "hi", "--chat-template", __file__, "--deadline-ms", "40")
    ((_, options),) = llm.given
    assert options == RequestOptions(deadline_ms=40, begins_turn=True)
    assert result.out == "Hel\n"
    assert result.err.startswith("the answer was cut by its deadline\n[")
    wrong = octavo("run", "m", "hi", "--deadline-ms", "0")
    assert wrong == refused("--deadline-ms 0: expected a whole number from 1 to 2147483647")


def test_an_answer_that_fills_the_context_is_said_to_be_cut(octavo: Octavo) -> None:
    command = ("run", TINY, "hello", "--temperature", "0", "--ignore-eos", "--quiet")
    full = octavo(*command, "--json")
    assert full.json["usage"]["completion_tokens"] == 128 - 24 + 1  # the last is never computed
    assert full.err == "the answer was cut: the context of 128 tokens is full\n"
    short = octavo(*command, "--json", "--max-tokens", "104")
    assert short.json["outputs"][0]["finish_reason"] == "length"
    assert short.err == ""  # as was asked


def test_stats_are_printed_and_part_of_the_json(octavo: Octavo) -> None:
    result = octavo("run", TINY, "hello", *GREEDY, "--stats", "--json")
    assert result.json["stats"]["computed_tokens"] == 24 + 7
    assert result.json["stats"].keys() == STATS.keys()
    assert not re.search("[a-z]_[a-z]", result.err)  # people are told in words
    assert "\nmemory: weights 309 KiB, KV 0 B in use, 8 KiB kept for reuse\n" in result.err
    assert "\ntokens: 31 computed, K and V of 189 read; 0 requests preempted\n" in result.err
    assert "\nsteps: 8 in " in result.err
    assert "\ncache: 0 of 24 prompt tokens reused; cold: nothing was kept yet\n" in result.err
    budget = "KV: 1 MiB for up to 4,096 tokens, context 128\n"
    small = octavo("run", TINY, "hello", *GREEDY, "--stats", "--kv-memory", "1M")
    assert budget in small.err
    assert budget not in octavo("run", TINY, "hello", *GREEDY, "--kv-memory", "1M").err


def test_trace_steps_shows_the_prompt_computed_once_then_one_token_a_step(octavo: Octavo) -> None:
    flags = ["--raw", "--trace-steps"]
    lines = octavo("run", TINY, "hello", *GREEDY, *flags).out.splitlines()
    assert lines[0] == "step  computed    read  text so far"
    counts = [[int(word) for word in line.split()[:3]] for line in lines[1:]]
    assert counts == [[0, 5, 0]] + [[n, 1, n + 4] for n in range(1, 8)]
    cached = octavo("run", TINY, "hello", *GREEDY, *flags, "--json").json
    steps = [[s["step"], s["computed_tokens"], s["kv_read_tokens"]] for s in cached["steps"]]
    assert steps == counts
    assert all('"hello' in line for line in lines[1:])  # --raw shows what is continued
    # Without the cache the whole sequence is computed for every token.
    without = octavo("run", TINY, "hello", *GREEDY, *flags, "--json", "--no-kv-cache")
    counts = [[s["computed_tokens"], s["kv_read_tokens"]] for s in without.json["steps"]]
    assert counts == [[n, 0] for n in range(5, 13)]
    assert without.json["outputs"] == cached["outputs"]
    assert "   7        12       0  " in without.err


@pytest.mark.parametrize(("flags", "out"), [([], "Hel\n"), (["--json"], "")])
def test_ctrl_c_in_an_answer_ends_its_line(octavo: Octavo, flags: list[str], out: str) -> None:
    def press(index: int) -> None:
        if index == 1:
            os.kill(os.getpid(), signal.SIGINT)

    llm = FakeLLM(["Hel", "lo"], between=press)
    result = octavo("run", llm, "hi", "--chat-template", __file__, *flags)
    assert result == Result(130, out, "")


def test_engine_flags_reach_the_engine(octavo: Octavo, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def remember(model: str, engine: dict[str, object]) -> FakeLLM:
        given.append(engine)
        return FakeLLM(["Hel"])

    monkeypatch.setattr("octavo.cli.run.open_llm", remember)
    for flags, engine in [
        ([], {}),
        (["--prefix-cache", "--kv-cache"], {"prefix_cache": True, "kv_cache": True}),
        (["--no-prefix-cache", "--no-kv-cache"], {"prefix_cache": False, "kv_cache": False}),
        (["--pack-cache"], {"pack_cache": True}),
        (["--no-pack-cache"], {"pack_cache": False}),
        (["--kv-idle", "0", "--eviction", "cost"], {"kv_idle": 0.0, "eviction": "cost"}),
        (["--kv-idle", "inf", "--step-ms", "inf"], {"kv_idle": inf, "step_ms": inf}),
        (["--kv-memory", "2G", "--step-ms", "0.5"], {"kv_memory": "2G", "step_ms": 0.5}),
    ]:
        octavo("run", "m", "hi", "--chat-template", __file__, *flags)
        assert given.pop() == engine
    both = "--prefix-cache needs the KV cache: leave it or --no-kv-cache out"
    for flags, message in [
        (["--eviction", "fifo"], "--eviction 'fifo': expected one of lru, cost"),
        (["--step-ms", "0"], "--step-ms 0.0: expected a number above 0"),
        (["--kv-idle", "-1"], "--kv-idle -1.0: expected a number from 0"),
        (["--prefix-cache", "--no-kv-cache"], both),
    ]:
        assert octavo("run", "m", "hi", *flags) == refused(message)
    # A schedule is for many requests.
    for flag in ("--schedule", "--max-num-seqs"):
        assert flag in octavo("batch", "--help").out
        assert flag not in octavo("run", "--help").out


def test_without_a_prefix_cache_the_reason_says_so(octavo: Octavo) -> None:
    for flag in ("--no-prefix-cache", "--no-kv-cache"):
        result = octavo("run", TINY, "hello", *GREEDY, flag, "--stats", "--json")
        assert result.json["cache"]["reason"] == "disabled"
        assert "0 of 24 prompt tokens reused; disabled: the prefix cache is off\n" in result.err
