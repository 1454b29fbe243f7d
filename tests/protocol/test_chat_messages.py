"""Messages of a chat's body: turns with calls and results, and what of them is refused."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.chat_messages import read_chat_messages

USER = {"role": "user", "content": "hi"}


def call(**more: object) -> dict[str, Any]:
    function = {"name": "add", "arguments": '{"a": 1}'}
    return {"id": "call_1", "type": "function", "function": function, **more}


def called(*calls: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


READ = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def test_turns_with_calls_and_results() -> None:
    given = [
        {"role": "developer", "content": "brief"},
        USER,
        called(call(), call(index=1, type=None), reasoning_content="hm", refusal=None, audio=None),
        {"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "call_1"},
        {"role": "tool", "content": "", "tool_call_id": "call_1", "name": "add"},
        {"role": "assistant", "content": "So.", "tool_calls": [], "reasoning_content": None},
    ]
    assert read_chat_messages(given) == (
        {"role": "system", "content": "brief"},
        USER,
        {"role": "assistant", "content": "", "tool_calls": [READ, READ], "reasoning_content": "hm"},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
        {"role": "tool", "content": "", "tool_call_id": "call_1", "name": "add"},
        {"role": "assistant", "content": "So."},
    )


def test_a_call_that_was_broken_off_is_taken_back() -> None:
    broken = call(function={"name": "add", "arguments": '{"a": '})
    (found,) = read_chat_messages([called(broken)])
    assert found["tool_calls"] == [broken]


def test_an_answer_is_taken_back_as_clients_have_it() -> None:
    function = {**call()["function"], "parsed_arguments": {"a": 1}}
    answers = [
        called(call(function=function), parsed=None, annotations=[], function_call=None),
        {"role": "assistant", "content": '{"ok": true}', "parsed": {"ok": True}, "refusal": None},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    ]
    assert read_chat_messages(answers) == (
        {"role": "assistant", "content": "", "tool_calls": [READ]},
        {"role": "assistant", "content": '{"ok": true}'},
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "No."},
    )


@pytest.mark.parametrize(
    ("more", "name"),
    [({"role": "user", "parsed": {}}, "parsed"), ({"refusal": "No."}, "refusal"),
     ({"annotations": [{"type": "url_citation"}]}, "annotations")],
)  # fmt: skip
def test_what_would_be_lost_of_it_is_refused(more: dict[str, Any], name: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_chat_messages([{"role": "assistant", "content": "a", **more}])
    assert caught.value.param == f"messages[0].{name}"


AT = "messages[1].tool_calls[0]"


@pytest.mark.parametrize(
    ("message", "said", "param"),
    [
        (called(call(id=None)), f"{AT}.id: expected a string, found null", f"{AT}.id"),
        (called(call(type="custom")), f'{AT}.type: expected "function"', f"{AT}.type"),
        (called(call(idx=1)), f"{AT}: unknown field 'idx'; did you mean id or index?", f"{AT}.idx"),
        (called(call(function={"name": "add", "x": 1})),
         f"{AT}.function: unknown field 'x'; known: name, arguments", f"{AT}.function.x"),
        (called(call(function={"name": 1})),
         f"{AT}.function.name: expected a string, found a whole number", f"{AT}.function.name"),
        (called(call(function={"name": "add", "arguments": 1})),
         f"{AT}.function.arguments: expected an object, or one as a string, found a whole number",
         f"{AT}.function.arguments"),
        ({**called(call()), "role": "user"},
         "messages[1].content: expected a string or a list of text parts, found nothing",
         "messages[1].content"),
        ({**USER, "tool_calls": [call()]}, "messages[1].tool_calls is not supported: leave it out",
         "messages[1].tool_calls"),
        ({**USER, "tool_call_id": "1"}, "messages[1].tool_call_id is not supported: leave it out",
         "messages[1].tool_call_id"),
        ({"role": "tool", "content": "2"},
         "messages[1].tool_call_id: expected the id of the call that this is the result of",
         "messages[1].tool_call_id"),
        ({"role": "tool", "content": "2", "tool_call_id": 1},
         "messages[1].tool_call_id: expected a string, found a whole number",
         "messages[1].tool_call_id"),
        ({"role": "assistant", "content": "a", "reasoning_content": ["b"]},
         "messages[1].reasoning_content: expected a string, found a list",
         "messages[1].reasoning_content"),
        ({"role": "function", "content": "a", "name": "f"},
         "messages[1].role: expected one of system, developer, user, assistant, tool",
         "messages[1].role"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_by_its_whole_path(
    message: Any, said: str, param: str
) -> None:
    with pytest.raises(BodyError) as caught:
        read_chat_messages([USER, message])
    assert (str(caught.value), caught.value.param) == (said, param)


IN_PART = "messages[1].content[1]"


@pytest.mark.parametrize(
    ("part", "param"),
    [({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "cache_control"),
     ({"type": "image_url", "image_url": {"url": "http://x"}}, "image_url"),
     ({"type": "file", "file_id": "x"}, "type")],
)  # fmt: skip
def test_what_a_part_has_beside_its_text_is_named_by_its_whole_path(
    part: dict[str, Any], param: str
) -> None:
    text = {"type": "text", "text": "a", "cache_control": None,
            "prompt_cache_breakpoint": {"mode": "explicit"}}  # fmt: skip
    (read,) = read_chat_messages([{"role": "user", "content": [text, text]}])
    assert read["content"] == "a\na"
    with pytest.raises(BodyError) as caught:
        read_chat_messages([USER, {"role": "user", "content": [text, part]}])
    assert caught.value.param == f"{IN_PART}.{param}"
    assert str(caught.value).startswith(IN_PART)
