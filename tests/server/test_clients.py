"""OpenAI's own client against the server, as people use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.gate import PATIENCE
from tests.server.live import Live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=f"{live.url}/v1", api_key="none needed", max_retries=0, timeout=PATIENCE
    ) as found:
        yield found


def test_a_seed_repeats_an_answer_whole_and_in_pieces(client: OpenAI) -> None:
    def ask() -> str | None:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], seed=5, max_tokens=8
        )
        return answer.choices[0].message.content

    pieces = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], seed=5, max_tokens=8,
        stream=True,
    )  # fmt: skip
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert ask() == ask() == text


def test_completions_with_echo_and_logprobs(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="hello", echo=True, logprobs=2, max_tokens=2, temperature=0
    )
    (choice,) = answer.choices
    assert choice.text.startswith("hello")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens[:5]) == "hello"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_errors_have_their_types(client: OpenAI) -> None:
    message: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.chat.completions.create(model="gpt-4o", messages=message)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="x" * 300)
    assert caught.value.code == "context_length_exceeded"
