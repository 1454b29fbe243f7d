"""How far a prompt is, told while it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.live import Live, slowed

COMPLETIONS = "/v1/completions"


def told(live: Live, prompt: str) -> list[dict[str, Any]]:
    body = {"prompt": prompt, "max_tokens": 2, "stream": True, "return_progress": True}
    *events, done = live.post(COMPLETIONS, body).events
    assert done == "[DONE]"
    found = [each for each in events if "prompt_progress" in each]
    assert all(each["choices"] == [] for each in found)
    return [each["prompt_progress"] for each in found]


def test_a_prompt_is_told_to_its_end(roomy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Live(roomy_path, rows=16) as live:
        monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
        found = told(live, "x" * 640)  # forty steps, two seconds
        again = told(live, "x" * 640 + "y" * 160)
    processed = [each["processed"] for each in found]
    assert processed == sorted(set(processed))
    assert len(processed) > 1
    assert (processed[-1], found[-1]["eta_ms"]) == (640, 0)
    assert again[-1]["processed"] == 800
    for each in found:
        assert each.keys() == {"total", "cache", "processed", "time_ms", "eta_ms"}
        assert (each["total"], each["cache"]) == (640, 0)
        assert 0 < each["processed"] <= 640
        assert each["time_ms"] > 0
    times = [each["time_ms"] for each in found]
    assert len(times) > 5
    assert all(later - each >= 1000 for each, later in zip(times, times[5:], strict=False))
    assert again
    assert all(each["cache"] == 640 <= each["processed"] for each in again)


@pytest.mark.parametrize("limit", [0, 3])
def test_its_end_is_told_once_and_before_the_first_token(live: Live, limit: int) -> None:
    prompts = ["one", "another", "a third"]
    body = {"prompt": prompts, "max_tokens": limit, "n": 2, "stream": True, "return_progress": True}
    *events, _ = live.post(COMPLETIONS, body).events
    found = [each["prompt_progress"] for each in events if "prompt_progress" in each]
    ends = [each for each in found if each["processed"] == each["total"]]
    assert len(ends) == len(prompts)  # before them a busy machine may tell less
    assert "prompt_progress" in events[0]


def test_it_is_for_streams(live: Live) -> None:
    answer = live.post(COMPLETIONS, {"prompt": "x", "return_progress": True})
    assert (answer.status, answer.error) == (400, "return_progress needs stream: true")
