"""OpenAI's own client against the server, as people use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from octavo.server.auth import Keys
from tests.gate import PATIENCE
from tests.server.live import Live

KEY = "a-key-of-tests-that-is-long-enough"


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


def test_several_answers_stream_each_to_its_own_end(client: OpenAI) -> None:
    asked: Any = {
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "n": 3, "seed": 2,
        "max_tokens": 6, "logprobs": True, "top_logprobs": 1,
    }  # fmt: skip
    told: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        told[choice.index].append(choice)
    for whole in client.chat.completions.create(**asked).choices:
        pieces = told[whole.index]
        assert "".join(each.delta.content or "" for each in pieces) == whole.message.content
        ends = [each.finish_reason for each in pieces]
        assert ends == [None] * (len(ends) - 1) + [whole.finish_reason]
        logprobs = [token for each in pieces if each.logprobs for token in each.logprobs.content]
        assert logprobs == whole.logprobs.content


def test_a_round_of_two_calls_one_of_them_without_arguments(roomy: Live) -> None:
    """Whole and by the client's own helper for streams, and what they gave is taken back."""
    city = {"type": "string", "enum": ["Rome"]}
    weather = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    tools: Any = [
        {"type": "function", "function": {"name": "weather", "parameters": weather}},
        {"type": "function", "function": {"name": "now"}},
    ]
    first: Any = {"role": "user", "content": "hi"}
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE) as client:
        for seed in range(40):
            asked: Any = {
                "model": "tiny", "messages": [first], "tools": tools, "tool_choice": "required",
                "seed": seed, "max_tokens": 400,
            }  # fmt: skip
            choice = client.chat.completions.create(**asked).choices[0]
            names = {call.function.name for call in choice.message.tool_calls or ()}
            if choice.finish_reason == "tool_calls" and names == {"weather", "now"}:
                break
        assert names == {"weather", "now"}
        calls = choice.message.tool_calls
        assert {call.function.arguments for call in calls if call.function.name == "now"} == {"{}"}
        with client.chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            streamed = stream.get_final_completion().choices[0]
        assert streamed.finish_reason == choice.finish_reason
        assert [each.function.to_dict() for each in streamed.message.tool_calls or ()] == [
            {**each.function.to_dict(), "parsed_arguments": None} for each in calls
        ]
        results: Any = [{"role": "tool", "tool_call_id": c.id, "content": "1"} for c in calls]
        more = {**asked, "tool_choice": "none", "max_tokens": 1}
        for message in (choice.message, streamed.message):
            answer = client.chat.completions.create(
                **{**more, "messages": [first, message, *results]}
            )
            assert answer.choices[0].message.role == "assistant"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_errors_have_their_types(client: OpenAI) -> None:
    message: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.chat.completions.create(model="gpt-4o", messages=message)
    with pytest.raises(openai.BadRequestError, match="prompt is too long") as caught:
        client.completions.create(model="tiny", prompt="x" * 300)
    assert caught.value.code == "context_length_exceeded"


def test_limits_and_keys_have_their_types(tiny_path: Path) -> None:
    def ask(key: str, live: Live, prompt: str = "x") -> None:
        with OpenAI(
            base_url=f"{live.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE
        ) as client:
            client.completions.create(model="tiny", prompt=prompt, max_tokens=1)

    with Live(tiny_path, keys=Keys([KEY]), max_body=1024, max_waiting=1) as live:
        ask(KEY, live)
        with pytest.raises(openai.AuthenticationError) as wrong:
            ask("wrong", live)
        assert wrong.value.code == "invalid_api_key"
        with pytest.raises(openai.APIStatusError, match="--max-body") as large:
            ask(KEY, live, "x" * 1024)
        assert large.value.status_code == 413
        place = live.service.loaded.admission.enter("")
        with pytest.raises(openai.RateLimitError) as busy:
            ask(KEY, live)
        place.__exit__()
        assert 1 <= int(busy.value.response.headers["retry-after"]) <= 60
