"""/v1/chat/completions: messages in, the exact response out."""

from __future__ import annotations

import math
from typing import Any

import pytest

from octavo.protocol.answer import plain_reader
from octavo.protocol.bodies import BodyError
from octavo.protocol.chat import ChatRequest, parse_chat
from octavo.protocol.chat_answer import ChatAnswer
from octavo.sampling_params import SamplingParams
from tests.protocol.outputs import EURO, Words, completion, output, token

USER = {"role": "user", "content": "hi"}
NAMED: dict[str, Any] = {
    "id": "chatcmpl-1", "created": 17, "model": "m", "vocabulary": Words(),
    "new_reader": plain_reader,
}  # fmt: skip


def refusal(*messages: object, **fields: object) -> tuple[str, str | None]:
    with pytest.raises(BodyError) as caught:
        parse_chat({"messages": list(messages), **fields})
    return str(caught.value), caught.value.param


def test_roles_and_parts_become_what_templates_read() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "zwölf"}]
    messages = [
        {"role": "developer", "content": "brief"},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": "", "refusal": None, "tool_calls": None},
    ]
    found = parse_chat({"model": "m", "messages": messages})
    assert found.model == "m"
    assert found.messages == (
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "one\nzwölf", "name": "Ann"},
        {"role": "assistant", "content": ""},
    )


def test_either_name_of_the_limit_but_not_both() -> None:
    assert parse_chat({"messages": [USER], "max_tokens": 5}).params.max_tokens == 5
    assert parse_chat({"messages": [USER], "max_completion_tokens": 6}).params.max_tokens == 6
    assert refusal(USER, max_tokens=5, max_completion_tokens=5)[1] == "max_tokens"
    assert parse_chat({"messages": [USER], "max_completion_tokens": 0}).params.max_tokens == 0
    assert refusal(USER, max_completion_tokens=-1) == (
        "max_completion_tokens=-1: expected a whole number from 0 to 2147483647",
        "max_completion_tokens",
    )


def test_logprobs_is_a_switch_and_top_logprobs_the_number() -> None:
    def asked(**fields: object) -> int | None:
        return parse_chat({"messages": [USER], **fields}).params.logprobs

    assert asked() is asked(logprobs=False) is asked(logprobs=False, top_logprobs=0) is None
    assert asked(logprobs=True) == 0
    assert asked(logprobs=True, top_logprobs=5) == 5
    assert refusal(USER, top_logprobs=2) == ("top_logprobs needs logprobs: true", "top_logprobs")
    assert refusal(USER, logprobs=True, top_logprobs=21)[1] == "top_logprobs"
    assert refusal(USER, logprobs=2)[0] == "logprobs: expected true or false, found a whole number"


@pytest.mark.parametrize(
    ("message", "said"),
    [("hi", 'messages[1]: expected {"role": …, "content": …}, found a string'),
     ({"content": "x"}, "messages[1].role: expected a plain name such as 'user', found nothing"),
     ({"role": "ipython", "content": "x"}, "messages[1].role: expected one of system, developer, "),
     ({"role": "user"}, "messages[1].content: expected a string or a list of text parts, found "),
     ({"role": "user", "content": []}, "messages[1].content: expected a string or a list of text "),
     ({"role": "user", "content": 7}, "messages[1].content: expected a string or a list of text "),
     ({"role": "user", "content": ["x"]}, "messages[1].content[0]: no part: expected {"),
     ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
      "messages[1].content[0].image_url: parts of type 'image_url' are not supported: expected {"),
     ({"role": "user", "content": [{"type": "text"}]},
      "messages[1].content[0].text: expected a string, found null"),
     ({"role": "user", "content": "x", "name": 1},
      "messages[1].name: expected a string, found a whole number")],
)  # fmt: skip
def test_a_message_that_cannot_be_read_is_named(message: Any, said: str) -> None:
    text, param = refusal(USER, message)
    assert text.startswith(said)
    assert param == text.partition(" ")[0].removesuffix(":")


def test_messages_there_must_be_and_no_limit_and_no_model() -> None:
    assert parse_chat({"messages": [USER]}) == ChatRequest(None, (USER,), params=SamplingParams())
    with pytest.raises(BodyError, match=r"messages is missing: give a list of"):
        parse_chat({})
    assert refusal() == ("messages: expected at least one", "messages")
    with pytest.raises(BodyError, match="messages: expected a list, found a string"):
        parse_chat({"messages": "hi"})


def test_the_response_is_openais() -> None:
    both = output(completion("Hi there"), completion("Hi", reason="deadline"))
    assert ChatAnswer(ChatRequest(None, ()), **NAMED).whole([both]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "m",
        "choices": [
            {
                "index": index, "logprobs": None, "finish_reason": reason,
                "message": {"role": "assistant", "content": text, "refusal": None},
            }
            for index, (text, reason) in enumerate([("Hi there", "stop"), ("Hi", "length")])
        ],
        "usage": {
            "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }  # fmt: skip


def test_logprobs_have_the_bytes_that_a_part_of_a_character_has_no_text_for() -> None:
    tokens = [token(0, -0.5, (0, -0.5), (5, -1.5)), token(2, -math.inf), token(3, -0.25)]
    answer = completion("Hi€", *tokens, wanted=True)
    choices: Any = ChatAnswer(ChatRequest(None, ()), **NAMED).whole([output(answer)])["choices"]
    (choice,) = choices
    hi = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    end = {"token": "<end>", "logprob": -1.5, "bytes": list(b"<end>")}
    assert choice["logprobs"] == {
        "content": [
            {**hi, "top_logprobs": [hi, end]},
            {"token": "�", "logprob": -9999.0, "bytes": [EURO[0]], "top_logprobs": []},
            {"token": "��", "logprob": -0.25, "bytes": [*EURO[1:]], "top_logprobs": []},
        ],
        "refusal": None,
    }


def test_where_the_prompt_ends() -> None:
    said = {"role": "assistant", "content": "so"}

    def ends(**fields: object) -> tuple[str, bool]:
        found = parse_chat({"messages": [USER, said], **fields})
        return found.end, found.options.begins_turn  # a blank before what goes on is text

    assert ends() == ends(add_generation_prompt=True) == ("answer", True)
    assert ends(continue_final_message=False) == ("answer", True)
    assert ends(add_generation_prompt=False) == ("closed", True)
    assert ends(continue_final_message=True) == ("open", False)
    assert ends(continue_final_message=True, add_generation_prompt=False) == ("open", False)
    assert refusal(USER, said, continue_final_message=True, add_generation_prompt=True) == (
        "continue_final_message and add_generation_prompt cannot both be true",
        "add_generation_prompt",
    )
    for name, value in (("continue_final_message", True), ("add_generation_prompt", False)):
        assert refusal(USER, said, session="s", **{name: value}) == (
            f"{name}: each turn of a session begins an answer: leave it out", name
        )  # fmt: skip
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    for last in (USER, {"role": "assistant", "tool_calls": calls}):
        text, param = refusal(USER, last, continue_final_message=True)
        assert text.endswith("expected a last message of the assistant that calls no tools")
        assert param == "continue_final_message"
