"""A server of a model whose context slides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import Live

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def endless(tiny_path: Path) -> Iterator[Live]:
    with Live(tiny_path, sliding=64) as server:
        yield server


def test_an_answer_of_no_given_length_ends(endless: Live) -> None:
    """Its prompt is longer than what the model was trained for."""
    body = {"messages": [{"role": "user", "content": "ab" * 100}], "ignore_eos": True}
    answer = endless.post(CHAT, body)
    (choice,), usage = answer.json["choices"], answer.json["usage"]
    assert (choice["finish_reason"], usage["completion_tokens"]) == ("length", 64)
    assert usage["prompt_tokens"] > 200


def test_the_list_says_how_many_tokens_are_seen(endless: Live, live: Live) -> None:
    (model,) = endless.get("/v1/models").json["data"]
    assert (model["max_model_len"], model["sliding_context"]) == (2**30, 64)
    (model,) = live.get("/v1/models").json["data"]
    assert model["sliding_context"] is None
    assert "model.sliding_context" in live.get("/page.js").body.decode()  # the page tells it
