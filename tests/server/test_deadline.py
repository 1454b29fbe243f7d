"""An answer that its deadline cut short is told as a length, and that it was the deadline."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.server.live import Live, slowed, until

HI = [{"role": "user", "content": "hi"}]
CUT: dict[str, Any] = {"deadline_ms": 150, "ignore_eos": True}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HI, "n": 2}),
    ("/v1/completions", {"prompt": ["hi", "there"], "max_tokens": 100}),
    ("/v1/messages", {"messages": HI, "max_tokens": 100}),
    ("/v1/responses", {"input": "hi"}),
]
CASES = pytest.mark.parametrize(("path", "body"), BODIES, ids=[path for path, _ in BODIES])


@pytest.fixture
def slow(live: Live, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
    return live


def ends(answer: Any) -> list[object]:
    """How an answer of any API says that it ended."""
    if "choices" in answer:
        return [each["finish_reason"] for each in answer["choices"]]
    details = answer.get("incomplete_details") or {}
    return [answer.get("stop_reason", details.get("reason"))]


@CASES
def test_plain_answers_say_it_in_a_header(slow: Live, path: str, body: dict[str, Any]) -> None:
    found = slow.post(path, {**body, **CUT})
    assert found.headers["x-octavo-ended-by"] == "deadline"
    assert set(ends(found.json)) <= {"length", "max_tokens", "max_output_tokens"}
    limit = {"/v1/responses": "max_output_tokens"}.get(path, "max_tokens")
    assert "x-octavo-ended-by" not in slow.post(path, {**body, limit: 1}).headers


@CASES
def test_streams_say_it_beside_their_figures(slow: Live, path: str, body: dict[str, Any]) -> None:
    asked = {**body, **CUT, "stream": True}
    if path != "/v1/messages":
        asked["stream_options"] = {"include_cache": True}
    events = [each for each in slow.post(path, asked).events if each != "[DONE]"]
    told = [each.get("response", each) for each in events]
    assert [each["ended_by"] for each in told if "ended_by" in each] == ["deadline"]


def test_the_log_and_the_metrics_say_it(slow: Live, caplog: pytest.LogCaptureFixture) -> None:
    name = 'vllm:request_success_total{finished_reason="deadline",model_name="tiny"}'

    def counted() -> float:
        lines = slow.get("/metrics").body.decode().splitlines()
        (count,) = (line.split()[-1] for line in lines if line.startswith(name))
        return float(count)

    before = counted()
    caplog.set_level(logging.INFO, "octavo.server.log")
    slow.post("/v1/completions", {"prompt": "hi", "max_tokens": 100, **CUT})
    until(lambda: bool(caplog.records))
    assert json.loads(caplog.records[-1].getMessage())["finish"] == ["deadline"]
    until(lambda: counted() == before + 1)
