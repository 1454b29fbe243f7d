"""Messages of a chat: what is handed on, and what is refused by its place."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.tokenizer.messages import MessageError, read_messages, read_tools
from tests.tokenizer.fixture_specs import load_tokenizer

USER = {"role": "user", "content": "hi"}
TEXT = {"type": "text", "text": "a"}


def test_parts_are_joined_and_all_else_is_handed_on() -> None:
    parts = {"role": "user", "content": (TEXT, {**TEXT, "cache_control": {}}), "name": "Ann"}
    result = {"role": "tool", "content": "4", "tool_call_id": "1"}
    thought = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    given = (parts, result, thought)
    assert read_messages(given) == [{**parts, "content": "a\na"}, result, thought]
    assert isinstance(parts["content"], tuple)  # what was given stays as it was


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ("f", "tools: expected a list, found a string"),
        ({"name": "f"}, "tools: expected a list, found an object"),
        ([{"name": "f"}, "g"], "tools[1]: expected an object, found a string"),
    ],
)
def test_tools_are_a_list_of_objects(tools: object, why: str) -> None:
    with pytest.raises(MessageError) as error:
        read_tools(tools)
    assert str(error.value) == why


def call(arguments: object, **more: object) -> dict[str, Any]:
    return {**more, "type": "function", "function": {"name": "f", "arguments": arguments}}


def calls(*each: object, **more: object) -> dict[str, Any]:
    return {"role": "assistant", **more, "tool_calls": list(each)}


def test_a_message_that_calls_tools_may_do_without_content() -> None:
    for content in ({}, {"content": None}, {"content": ""}):
        found = read_messages([USER, calls(call({}, id="1"), **content)])
        assert found == [USER, calls(call({}, id="1"), content="")]
    assert read_messages([calls(call({}), content=[TEXT])]) == [calls(call({}), content="a")]


@pytest.mark.parametrize("none", [None, [], ()])
def test_no_calls_are_no_list(none: object) -> None:
    assert read_messages([{**USER, "tool_calls": none}]) == [USER]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ('{"a": [1, "é"]}', {"a": [1, "é"]}),
        ({"a": 1}, {"a": 1}),
        ("{}", {}),
        ("", {}),
        (None, {}),
        ('{"a": ', '{"a": '),
        ("[1]", "[1]"),
        ("[" * 200_000, "[" * 200_000),
    ],
)
def test_arguments_become_objects_and_what_is_none_stays_text(given: object, read: object) -> None:
    message = calls(call(given), content="")
    assert read_messages([message]) == [calls(call(read), content="")]
    assert message == calls(call(given), content=""), "what was given stays as it was"


def test_arguments_may_be_left_out() -> None:
    message = calls({"function": {"name": "f"}}, content="")
    assert read_messages([message]) == [
        calls({"function": {"name": "f", "arguments": {}}}, content="")
    ]


NO_LIST = [
    (None, "messages: expected a list, found null"),
    ("hi", "messages: expected a list, found a string"),
    (USER, "messages: expected a list, found an object"),
    ([], "messages: expected at least one"),
    ([USER, 5], 'messages[1]: expected {"role": …, "content": …}, found a whole number'),
]  # fmt: skip
CONTENT = "messages[1].content: expected a string or a list of text parts, found "
PART = 'expected {"type": "text", "text": …}'
CALL = (
    'messages[1].tool_calls[0]: expected {"type": "function", "function": {"name": …, '
    '"arguments": …}}, found '
)
FUNCTION = "messages[1].tool_calls[0].function."
ROLE = "messages[1].role: expected a plain name such as 'user', found "
NO_MESSAGE = [
    ({"role": "user", "contents": "hi"}, CONTENT + "nothing; is 'contents' meant?"),
    ({"role": "user"}, CONTENT + "nothing"),
    ({"role": "user", "content": None}, CONTENT + "nothing"),
    ({"role": "user", "content": None, "tool_calls": [call({})]}, CONTENT + "nothing"),
    (calls(), CONTENT + "nothing"),
    ({**USER, "tool_calls": "f"}, "messages[1].tool_calls: expected a list, found a string"),
    (calls(1), CALL + "a whole number"),
    (calls(call({}), {"name": "f"}), CALL.replace("0", "1") + "one without"),
    (calls({"function": "f"}), CALL + "one without"),
    (calls({"function": {}}), FUNCTION + "name: expected a string, found nothing"),
    (calls({"function": {"names": "f"}}),
     FUNCTION + "name: expected a string, found nothing; is 'names' meant?"),
    (calls(call([1])),
     FUNCTION + "arguments: expected an object, or one as a string, found a list"),
    ({"role": "assistant", "content": None, "tool_calls": []}, CONTENT + "nothing"),
    ({"role": "user", "content": 7}, CONTENT + "a whole number"),
    ({"role": "user", "content": b"hi"}, CONTENT + "bytes"),
    ({"role": "user", "content": []}, CONTENT + "an empty list"),
    ({"role": "user", "content": {"text": "hi"}}, CONTENT + "an object"),
    ({"role": "user", "content": ["hi"]}, f"messages[1].content[0]: no part: {PART}"),
    ({"role": "user", "content": [TEXT, {"type": "image_url"}]},
     f"messages[1].content[1]: parts of type 'image_url' are not supported: {PART}"),
    ({"role": "user", "content": [{"type": "text"}]},
     "messages[1].content[0].text: expected a string, found null"),
    ({"rôle": "user", "content": "hi"}, ROLE + "nothing; is 'rôle' meant?"),
    ({"role": 1, "content": "hi"}, ROLE + "a whole number"),
    ({"role": "a|>", "content": "hi"}, ROLE + "'a|>'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("messages", "said"), [*NO_LIST, *(([USER, message], said) for message, said in NO_MESSAGE)]
)
def test_what_cannot_be_read_is_named_by_its_place(messages: Any, said: str) -> None:
    with pytest.raises(MessageError) as caught:
        read_messages(messages)
    assert str(caught.value) == said
    assert said.startswith(caught.value.place + ": ")


def test_a_tokenizer_refuses_them_before_the_template_sees_them() -> None:
    tokenizer = load_tokenizer("tiny_bpe")
    with pytest.raises(MessageError, match="is 'contents' meant"):
        tokenizer.encode_chat([{"role": "user", "contents": "hi"}], chat_template="{{ messages }}")
