"""`octavo bench serve` against our own server, and against servers that misbehave."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.server.auth import Keys
from tests.bench.server_load.fake_server import (
    DONE,
    HANG,
    MODELS,
    WHOLE,
    answer,
    serving,
    stream,
    text,
    usage,
)
from tests.cli.process import end, start
from tests.cli.result import Octavo
from tests.cli.tiny_model import write_tiny_model
from tests.gate import PATIENCE
from tests.server.live import Live

KEY = "ann-0123456789abcdef"
FEW = ("--requests", "5", "--own", "8", "--tokens", "4")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with Live(path, keys=Keys([KEY])) as server:
        yield server


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_load_on_our_own_server(octavo: Octavo, live: Live, endpoint: str) -> None:
    result = octavo("bench", "serve", live.url, *FEW, "--endpoint", endpoint, "--json")
    found = result.json
    assert result.code == 0
    assert (found["bench"], found["url"], found["model"]) == ("serve", live.url, "tiny")
    assert (found["completed"], found["failed"], found["failures"]) == (5, 0, [])
    assert found["total_output_tokens"] == found["asked_output_tokens"] == 5 * 4
    assert found["total_input_tokens"] > 5 * 8  # bytes are this model's tokens
    assert found["output_throughput"] == pytest.approx(20 / found["duration"])
    assert found["mean_ttft_ms"] <= found["mean_e2el_ms"] <= 1e3 * found["duration"]
    assert (found["rate"], found["seed"], found["tokens"]) == (None, 0, 4)
    assert KEY not in result.out + result.err


def test_a_shared_beginning_is_computed_once(octavo: Octavo, live: Live) -> None:
    flags = ("--shared", "20", "--own", "2", "--tokens", "2", "--requests", "6", "--seed", "7")
    found = octavo("bench", "serve", live.url, *flags, "--json").json
    # 20 words are 60 bytes or more: three blocks of 16 at least, found by all but the first.
    assert found["total_cached_tokens"] >= 5 * 48
    again = octavo("bench", "serve", live.url, *flags)
    assert "more than half of what the prompts do not share was in the server's" in again.out


def test_the_text_has_what_is_offered_counts_and_times(octavo: Octavo, live: Live) -> None:
    flags = ("--rate", "1000", "--concurrency", "2", "--shared", "3", "--seed", "5")
    result = octavo("bench", "serve", live.url, *FEW, *flags)
    lines = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert lines[:5] == [
        f"server    {live.url}, model tiny",
        "requests  5 completions, 1,000 a second, at most 2 open",
        "prompts   3 tokens that all share, then random words, 8 tokens",
        "answers   4 tokens",
        "seed      5",
    ]
    names = [line.split("  ")[0] for line in lines[6:14]]
    assert names == [
        "successful requests", "failed requests", "duration", "input tokens", "output tokens",
        "requests a second", "output tokens a second", "all tokens a second",
    ]  # fmt: skip
    assert lines[15].split() == ["mean", "median", "p99"]
    assert [line.split("(")[1].split(")")[0] for line in lines[16:20]] == [
        "TTFT", "TPOT", "ITL", "E2EL",
    ]  # fmt: skip
    assert all(len(line) <= 80 for line in lines)


def test_a_key_that_is_wrong_is_told_with_its_flag(octavo: Octavo, live: Live) -> None:
    found = octavo("bench", "serve", live.url, *FEW, "--api-key", "bob")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith(f"octavo: {live.url}: HTTP 401: ")
    assert found.err.endswith("--api-key, OCTAVO_API_KEY or OPENAI_API_KEY has the key\n")


def test_the_key_for_octavo_comes_first(
    octavo: Octavo, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("OCTAVO_API_KEY", KEY)
    assert octavo("bench", "serve", live.url, *FEW).code == 0


def test_requests_that_fail_are_counted_and_each_reason_told_once(octavo: Octavo) -> None:
    full = answer('{"error": {"message": "queue of 9 is full"}}', "429 Too Many Requests")
    answers = [WHOLE, full, stream(text("a"), DONE), full, WHOLE]
    with serving(*answers) as server:
        result = octavo("bench", "serve", server.url, *FEW, "--tokens", "2", "--concurrency", "1")
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "successful requests 2" in lines
    assert "failed requests 3" in lines
    told = "2 requests failed: HTTP 429: queue of 9 is full; --concurrency or --rate asks less"
    assert " ".join(lines).count(told) == 1
    assert any(line.startswith("1 request failed: its stream had no usage") for line in lines)


def test_when_all_fail_the_exit_code_says_so(octavo: Octavo) -> None:
    with serving(WHOLE, answer("", "500 Internal Server Error")) as server:
        result = octavo("bench", "serve", server.url, *FEW)
        assert result.code == 1
        assert "no request succeeded, 5 failed" in result.out
        assert "5 requests failed: HTTP 500: Internal Server Error" in result.out
        assert "TTFT" not in result.out
    with serving(WHOLE, b"") as server:
        result = octavo("bench", "serve", server.url, *FEW, "--json")
    assert (result.code, result.json["completed"], result.json["failed"]) == (1, 0, 5)
    assert result.json["mean_ttft_ms"] is None
    assert result.json["failures"] == [
        {"reason": "it closed the connection before it answered", "requests": 5}
    ]


def test_many_reasons_do_not_fill_the_screen(octavo: Octavo) -> None:
    kinds = [answer(f'{{"error": "{chr(97 + i)}"}}', "400 Bad Request") for i in range(11)]
    with serving(WHOLE, *kinds) as server:
        flags = ("--requests", "11", "--concurrency", "1")
        result = octavo("bench", "serve", server.url, *flags)
        whole = octavo("bench", "serve", server.url, *flags, "--json")
    assert result.out.count("1 request failed: HTTP 400") == 8
    assert "3 requests failed for other reasons: see --json" in result.out
    assert whole.code == 1  # its last answer is the first request's too


def test_answers_that_are_shorter_than_asked_are_remarked(octavo: Octavo) -> None:
    with serving(WHOLE) as server:
        said = octavo("bench", "serve", server.url, *FEW).out
        short = octavo("bench", "serve", server.url, *FEW, "--no-ignore-eos").out
    assert "answers are shorter than asked, 10 of 20 tokens" in said
    assert "answers are shorter" not in short


def test_the_first_request_tells_what_is_wrong_before_the_load(octavo: Octavo) -> None:
    with serving(stream(text("a"), DONE)) as server:
        found = octavo("bench", "serve", server.url, *FEW)
    assert (found.code, found.out, len(server.bodies)) == (1, "", 1)
    assert found.err == (
        f"octavo: {server.url}: the first request failed: its stream had no usage, so no token is "
        "counted: it has to know stream_options.include_usage\n"
    )


def test_which_model_is_asked(octavo: Octavo) -> None:
    none, two = (answer(json.dumps({"data": data})) for data in ([], [{"id": "a"}, {"id": "b"}]))
    with serving(WHOLE, models=none) as server:
        found = octavo("bench", "serve", server.url, *FEW)
        assert (found.code, found.err) == (
            1, f"octavo: {server.url} lists no model: load one there, or name it by --model\n"
        )  # fmt: skip
        assert octavo("bench", "serve", server.url, *FEW, "--model", "c").code == 0
        assert {body["model"] for body in server.bodies} == {"c"}
    with serving(WHOLE, models=two) as server:
        found = octavo("bench", "serve", server.url, *FEW)
        assert (found.code, found.err) == (
            2, f"octavo: {server.url} has several models (a, b): --model says which\n"
        )  # fmt: skip
    with serving(WHOLE, models=answer("", "404 Not Found")) as server:
        found = octavo("bench", "serve", server.url, *FEW)
    assert found.code == 1
    assert found.err.startswith(f"octavo: {server.url}: HTTP 404: Not Found; URL is what stands")


def test_what_a_server_says_moves_no_cursor(octavo: Octavo) -> None:
    evil = answer(json.dumps({"error": "\x1b[2J\nnext"}), "400 Bad Request")
    names = answer(json.dumps({"data": [{"id": "\x1b]0;x\x07"}]}))
    with serving(WHOLE, evil, models=names) as server:
        found = octavo("bench", "serve", server.url, *FEW)
    assert "\x1b" not in found.out + found.err
    assert "5 requests failed: HTTP 400: \\x1b[2J\\nnext" in found.out


def test_a_dataset_is_sent(octavo: Octavo) -> None:
    file = Path(__file__).parents[1] / "bench" / "server_load" / "conversations.json"
    with serving(stream(text("a"), usage(9, 11), DONE)) as server:
        result = octavo("bench", "serve", server.url, "--dataset", str(file), "--requests", "3")
    assert result.code == 0
    assert sorted(body["max_tokens"] for body in server.bodies[1:]) == [11, 17, 19]
    assert any(body["prompt"].startswith("Which river") for body in server.bodies)


def test_bad_usage_is_refused_before_anything_is_sent(octavo: Octavo) -> None:
    for flags, complaint in [
        (("--rate", "0"), "--rate '0': expected requests a second, or inf for all at once"),
        (("--dataset", "/none"), "--dataset '/none': no such file"),
        (("--requests", "0"), "--requests 0: expected a whole number from 1 to 1000000"),
        (("--max-tokens", "9"), "--max-tokens 9: answers of --tokens do not differ"),
    ]:
        found = octavo("bench", "serve", "http://127.0.0.1:1", "--tokens", "4", *flags)
        assert (found.code, found.err) == (2, f"octavo: {complaint}\n")
    assert octavo("bench", "serve", "nowhere").err == (
        "octavo: URL 'nowhere': expected http://HOST:PORT, https://… or unix:FILE\n"
    )


def test_without_aiohttp_the_extra_is_named(
    octavo: Octavo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = octavo("bench", "serve", "http://127.0.0.1:1")
    assert (found.code, found.err) == (
        2, "octavo: bench serve needs aiohttp: pip install 'octavo[bench]'\n"
    )  # fmt: skip


def test_ctrl_c_ends_it_with_one_line() -> None:
    hangs = stream(text("a"), whole=False) + HANG
    with serving(WHOLE, WHOLE, hangs, models=MODELS) as server:
        process = start("bench", "serve", server.url, *FEW, "--concurrency", "1")
        assert server.asked.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        found = end(process)
    assert found.code == 130
    assert found.err == "stopped: 1 of 5 requests had ended; nothing is measured\n"
