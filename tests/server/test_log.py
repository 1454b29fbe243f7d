"""The log: one line of JSON a request, without what it asked and was answered unless that is
wanted."""

from __future__ import annotations

import json
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from octavo.server.auth import Keys
from tests.server.live import Live, leave, until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SECRET = "a word that nobody else says"
ASKED = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 3, "ignore_eos": True}
ANN = "ann-0123456789abcdef"


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "octavo.server.log")


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    """The lines, as soon as there are so many: one comes after the last byte of its answer."""
    until(lambda: len(caplog.messages) >= count)
    assert len(caplog.messages) == count
    return [json.loads(message) for message in caplog.messages]


def test_a_line_tells_what_a_request_took(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    whole = live.post(CHAT, ASKED, x_request_id="mine").json
    live.post(CHAT, {**ASKED, "stream": True, "n": 2, "user": "me"})
    first, second = lines(caplog, 2)
    prompt = whole["usage"]["prompt_tokens"]
    assert first["time"].endswith("+00:00")
    assert 0 <= first["queue_ms"] <= first["ttft_ms"] <= first["ms"]
    assert first["tpot_ms"] >= 0
    measured = ("time", "ms", "queue_ms", "ttft_ms", "tpot_ms")
    assert {name: value for name, value in first.items() if name not in measured} == {
        "request_id": "mine",
        "method": "POST",
        "route": CHAT,
        "status": 200,
        "prompt_tokens": prompt,
        "cached_tokens": 0,
        "completion_tokens": 3,
        "finish": ["length"],
    }
    assert second["request_id"].startswith("req_")
    assert second["stream"] is True
    assert (second["cached_tokens"], second["completion_tokens"]) == (prompt - 1, 6)
    assert second["noted"] == ["user"]


def test_no_line_has_a_word_of_a_prompt(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    live.post(CHAT, ASKED)
    live.post(CHAT, {**ASKED, "stop": {"x": SECRET}})
    live.post(COMPLETIONS, {"prompt": SECRET, "model": SECRET})
    live.ask("POST", CHAT, f"{SECRET}".encode())
    found = lines(caplog, 4)
    assert [line["status"] for line in found] == [200, 400, 404, 400]
    assert [line.get("error") for line in found[1:]] == ["BodyError", "ModelNotFoundError",
                                                        "BodyError"]  # fmt: skip
    assert found[1]["param"] == "stop"
    assert SECRET not in caplog.text


def test_prompts_and_answers_where_they_are_wanted(
    tiny_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Live(tiny_path, log_prompts=True) as live:
        whole = live.post(CHAT, {**ASKED, "n": 2}).json
        live.post(COMPLETIONS, {"prompt": SECRET, "stop": {}})
        answered, refused = lines(caplog, 2)
    assert f"user\n{SECRET}" in answered["prompts"][0]
    assert answered["answers"] == [[each["message"]["content"] for each in whole["choices"]]]
    assert refused["message"].startswith("stop=")
    assert "prompts" not in refused


def test_who_asked_and_what_was_refused(tiny_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Live(tiny_path, keys=Keys([f"{ANN} tenant=ann"])) as live:
        live.post(CHAT, ASKED, x_api_key=ANN)
        live.post(CHAT, ASKED, x_api_key="wrong")
        live.get("/%7f" + "x" * 300, x_api_key=ANN)
        live.get("/health")
        live.get("/metrics", x_api_key=ANN)
        known, unknown, lost = lines(caplog, 3)
    assert known["tenant"] == "ann"
    assert (unknown["status"], unknown["error"]) == (401, "ApiError")
    assert "tenant" not in unknown
    assert (lost["status"], len(lost["path"])) == (404, 200)
    assert "\x7f" not in caplog.text


def test_a_client_that_leaves_has_a_line(
    live: Live, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(live, monkeypatch, {"prompt": "gone"})
    (line,) = lines(caplog, 1)
    assert (line["status"], line["prompt_tokens"]) == (499, 4)
    assert 0 < line["completion_tokens"] < 100
    assert "finish" not in line


def test_an_error_that_ends_many_has_of_each_the_traceback_of_one(
    live: Live, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All raise the same one, and whoever raises an error adds to its traceback."""
    count, loop = 12, live.llm.loop

    def fail() -> None:
        until(lambda: loop.backlog + len(loop.engine.requests.all) == count)
        raise RuntimeError("a broken step")

    monkeypatch.setattr(loop.engine, "step", fail)
    bodies = [{"prompt": "x", "stream": bool(i % 2)} for i in range(count)]
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(partial(live.post, COMPLETIONS), bodies))
    assert [b"its log has more" in each.body for each in answers] == [True] * count
    failed = [each for each in caplog.records if each.name == "octavo.server.errors"]
    traces = [traceback.extract_tb(each.exc_info[2]) for each in failed]
    assert len(traces) == count
    for trace in traces:
        assert [frame.name for frame in trace].count("take") <= 2  # the stream's, the queue's
