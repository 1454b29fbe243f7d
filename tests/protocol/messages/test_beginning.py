"""A last message of the assistant's is the beginning of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.messages.request import MessagesRequest, parse_messages

USER: dict[str, Any] = {"role": "user", "content": "hi"}
TOOLS = [{"name": "add", "input_schema": {"type": "object", "properties": {}}}]
SCHEMA = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
CALL = {"type": "tool_use", "id": "c", "name": "add", "input": {}}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def begun(content: object, **fields: object) -> MessagesRequest:
    messages = [USER, {"role": "assistant", "content": content}]
    return parse_messages({"max_tokens": 9, "messages": messages, **fields})


@pytest.mark.parametrize("content", ["It is", [text("It is")], [text("It"), text("is")]])
def test_the_answer_goes_on(content: object) -> None:
    chat = begun(content, tools=TOOLS, thinking={"type": "disabled"}).chat
    assert chat.messages[1]["content"].split() == ["It", "is"]
    assert (chat.end, chat.options.begins_turn) == ("open", False)


@pytest.mark.parametrize("content", ["", []])
def test_nothing_begins_no_answer(content: object) -> None:
    chat = begun(content).chat
    assert chat.messages == (USER,)
    assert (chat.end, chat.options.begins_turn) == ("answer", True)


WHERE = "messages[1].content"


@pytest.mark.parametrize(
    ("content", "fields", "said", "param"),
    [("It is ", {}, f"{WHERE}: the answer goes on with the last message, which may not end", WHERE),
     ([text("a"), text("b\n")], {}, f"{WHERE}: the answer goes on with", WHERE),
     (" ", {}, f"{WHERE}: the answer goes on with", WHERE),
     ([{"type": "thinking", "thinking": "x"}], {}, f"{WHERE}: the last message is the", WHERE),
     ([text("a"), CALL], {}, f"{WHERE}: calls of tools in the last message: exp", WHERE),
     ("It", {"thinking": {"type": "adaptive"}}, "thinking: the last message is ", "thinking"),
     ("It", {"output_config": SCHEMA}, "output_config.format: the last message is ",
      "output_config.format")],
)  # fmt: skip
def test_what_no_answer_can_go_on_with_is_refused(
    content: object, fields: dict[str, Any], said: str, param: str
) -> None:
    with pytest.raises(BodyError) as caught:
        begun(content, **fields)
    assert str(caught.value).startswith(said)
    assert caught.value.param == param


def test_nothing_at_all_is_no_conversation() -> None:
    with pytest.raises(BodyError, match="messages: expected at least one"):
        parse_messages({"max_tokens": 9, "messages": [{"role": "assistant", "content": ""}]})
