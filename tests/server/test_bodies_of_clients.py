"""Bodies in the shapes that people's clients send: each is answered, and what of it changes no
answer is named. Small ones of our own; `bodies/*.json` has path, body, and what is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM
from tests.server.live import Live

BODIES = sorted((Path(__file__).parent / "bodies").glob("*.json"))


@pytest.mark.parametrize("file", BODIES, ids=lambda file: file.stem)
def test_it_is_answered(roomy: Live, file: Path) -> None:
    given: dict[str, Any] = json.loads(file.read_text("utf-8"))
    answer = roomy.post(given["path"], given["body"])
    assert answer.status == 200, answer
    noted = answer.headers.get("x-octavo-ignored", "")
    assert [each for each in noted.split(", ") if each] == given["noted"]
    if given["body"].get("stream") and given["path"].endswith("completions"):
        assert answer.events[-1] == "[DONE]"


def test_scores_are_those_of_the_model(roomy: Live, roomy_path: Path) -> None:
    """As lm-eval asks for them: the prompt's own log-probabilities, and no token."""
    llm = LLM(roomy_path, threads=1)
    prompts = [list(b"The sky is blue"), list(b"no")]
    body = {"prompt": prompts, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
    choices = roomy.post("/v1/completions", body).json["choices"]
    for prompt, choice in zip(prompts, choices, strict=True):
        first, *others = choice["logprobs"]["token_logprobs"]
        assert first is None
        assert len(others) == len(prompt) - 1
        assert sum(others) == pytest.approx(float(llm.score(prompt).sum()), abs=1e-5)
