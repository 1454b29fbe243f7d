"""Answers of /v1/messages that the caller begins, whole, in pieces, and as they are counted."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic

from tests.gate import PATIENCE
from tests.server.live import Live

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI = {"role": "user", "content": "hi"}


def test_the_answer_goes_on_from_the_last_message(live: Live) -> None:
    messages = [HI, {"role": "assistant", "content": "It is so, it"}]
    chat = {"messages": messages, "continue_final_message": True}
    tokens = live.post("/tokenize", chat).json["tokens"]
    plain = {"prompt": tokens, "max_tokens": 8, "temperature": 0}
    expected = live.post("/v1/completions", plain).json["choices"][0]["text"]
    asked: dict[str, Any] = {"model": "tiny", "messages": messages}
    drawn = {**asked, "max_tokens": 8, "extra_body": {"temperature": 0}}
    with Anthropic(base_url=live.url, api_key="x", max_retries=0, timeout=PATIENCE) as client:
        (block,) = client.messages.create(**drawn).content
        with client.messages.stream(**drawn) as stream:
            assert "".join(stream.text_stream) == expected
        assert client.messages.count_tokens(**asked).input_tokens == len(tokens)
    assert block.type == "text"
    assert block.text == expected


def test_marks_before_the_beginning_are_kept(live: Live) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    question = [{"type": "text", "text": "Who swims in the sea at night?", **mark}]
    body = {"max_tokens": 2, "messages": [{"role": "user", "content": question},
            {"role": "assistant", "content": "They"}], "cache_salt": "begun"}  # fmt: skip
    found = live.post(MESSAGES, body)
    assert (found.status, int(found.headers["x-octavo-pinned"]) > 0) == (200, True)


def test_white_space_at_its_end_is_refused(live: Live) -> None:
    found = live.post(COUNT, {"messages": [HI, {"role": "assistant", "content": "So: "}]})
    assert (found.status, found.json["error"]["type"]) == (400, "invalid_request_error")
    assert "white space" in found.error
