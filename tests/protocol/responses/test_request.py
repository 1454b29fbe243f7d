"""Bodies of /v1/responses: what is read, what is noted, what is refused by its whole path."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.responses.request import parse_response
from octavo.protocol.responses.tools import Target

FUNCTION: dict[str, Any] = {"type": "function", "name": "weather", "parameters": None}
CUSTOM: dict[str, Any] = {"type": "custom", "name": "run", "description": "Run it."}


def test_a_text_is_a_message_and_instructions_stand_before_it() -> None:
    request = parse_response({"input": "hi", "instructions": "Be brief."})
    assert request.chat.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    )
    assert request.own == ({"role": "user", "content": "hi"},)
    assert (request.store, request.previous, request.noted) == (True, None, ())


def test_what_stands_before_a_conversation_is_one_system_message() -> None:
    items = [
        {"role": "developer", "content": "One."},
        {"role": "system", "content": [{"type": "input_text", "text": "Two."}]},
        {"type": None, "role": "user", "content": "hi"},
        {"role": "developer", "content": "Three."},
    ]
    messages = parse_response({"input": items, "instructions": "Zero."}).chat.messages
    assert [m["content"] for m in messages] == ["Zero.\n\nOne.\n\nTwo.", "hi", "Three."]
    assert [m["role"] for m in messages] == ["system", "user", "system"]


def test_items_of_one_turn_are_one_message() -> None:
    items = [
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [],
         "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
         "content": [{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x": 1}'},
        {"type": "custom_tool_call", "call_id": "b", "name": "g", "namespace": "n", "input": "ls"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "b",
         "output": [{"type": "input_text", "text": "2"}]},
        {"type": "message", "role": "assistant", "content": "so"},
    ]  # fmt: skip
    user, turn, one, two, last = parse_response({"input": items}).own
    assert user == {"role": "user", "content": "hi"}
    assert (turn["content"], turn["reasoning_content"]) == ("yes", "hm")
    assert [call["function"] for call in turn["tool_calls"]] == [
        {"name": "f", "arguments": {"x": 1}},
        {"name": "n__g", "arguments": {"input": "ls"}},
    ]
    assert one == {"role": "tool", "tool_call_id": "a", "content": "1"}
    assert two == {"role": "tool", "tool_call_id": "b", "content": "2"}
    assert last == {"role": "assistant", "content": "so"}


def test_a_conversation_goes_on_without_its_instructions() -> None:
    request = parse_response({"input": "and?", "instructions": "New."})
    earlier = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"})
    after = request.after(earlier)
    assert [m["content"] for m in after.chat.messages] == ["New.", "hi", "yes", "and?"]
    assert [m["content"] for m in after.own] == ["hi", "yes", "and?"]


def test_tools_of_all_kinds() -> None:
    space = {"type": "namespace", "name": "crm", "description": "Customers.",
             "tools": [FUNCTION, CUSTOM]}  # fmt: skip
    body = {"input": "hi", "tools": [FUNCTION, {"type": "web_search"}, CUSTOM, space]}
    told = parse_response(body).told
    assert told.tools is not None
    assert [tool.name for tool in told.tools.every] == [
        "weather", "run", "crm__weather", "crm__run",
    ]  # fmt: skip
    assert told.tools.noted == ("tools[1]",)
    assert told.target("crm__run") == Target("run", "crm", is_custom=True)
    assert told.target("weather") == Target("weather")
    run = told.tools.every[3]
    assert (run.description, run.strict) == ("Customers.\nRun it.", True)
    assert run.parameters == {
        "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
    }  # fmt: skip


def test_one_tool_is_chosen_by_its_own_name() -> None:
    space = {"type": "namespace", "name": "crm", "tools": [CUSTOM]}
    body = {
        "input": "hi",
        "tools": [FUNCTION, space],
        "tool_choice": {"type": "custom", "name": "run", "namespace": "crm"},
    }
    tools = parse_response(body).chat.tools
    assert tools is not None
    assert (tools.choice, tools.only) == ("required", frozenset(["crm__run"]))
    several = {"type": "allowed_tools", "mode": "auto",
               "tools": [{"type": "function", "name": "weather"}, {"type": "mcp"}]}  # fmt: skip
    tools = parse_response({**body, "tool_choice": several}).chat.tools
    assert tools is not None
    assert (tools.choice, tools.only) == ("auto", frozenset(["weather"]))


def test_what_changes_no_answer_is_noted() -> None:
    body = {
        "input": [{"role": "user", "content": "hi"},
                  {"type": "reasoning", "summary": [], "encrypted_content": "x"},
                  {"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        "text": {"verbosity": "low", "format": {"type": "text"}},
        "reasoning": {"summary": "auto", "effort": None},
        "include": ["reasoning.encrypted_content"],
        "truncation": "disabled", "user": "me", "service_tier": None,
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "stream": True, "stream_options": {"include_obfuscation": False},
    }  # fmt: skip
    assert set(parse_response(body).noted) == {
        *("user", "input[1]", "input[2]", "text.verbosity", "reasoning.summary", "include"),
        *("stream_options.include_obfuscation", "truncation", "context_management"),
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [({}, None), ({"top_logprobs": 2}, 2), ({"include": ["message.output_text.logprobs"]}, 0)],
)
def test_log_probabilities_are_asked_for_in_two_ways(
    more: dict[str, Any], expected: int | None
) -> None:
    request = parse_response({"input": "hi", **more})
    assert (request.chat.params.logprobs, request.noted) == (expected, ())


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"role": "cat", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": "x", "contnet": "y"}]}, "input[0].contnet"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"n": 2}, "n"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"tools": [{"type": "computer_use"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "name": "x", "format": {"type": "grammar"}}]},
         "tools[0].format.syntax"),
        ({"tools": [{"type": "custom", "name": "x", "format":
           {"type": "grammar", "syntax": "lark", "definition": 'start: "a".."z"'}}]},
         "tools[0].format.definition"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools[1]"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "wether"}},
         "tool_choice.name"),
        ({"stream_options": {"include_cache": True}}, "stream_options"),
        ({"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "x",
                                                       "why": "y"}]}]}, "input[0].content[0].why"),
        ({"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x",
                                                       "why": "y"}]}]}, "input[0].content[0].why"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(BodyError) as caught:
        parse_response({"input": "hi", **more})
    assert caught.value.param == param


def test_null_says_nothing_at_any_depth() -> None:
    body = {
        "input": [
            {"type": None, "role": "user", "id": None, "content": [
                {"type": "input_text", "text": "hi", "annotations": None, "x": None}]},
            {"type": "reasoning", "summary": None, "content": [
                {"type": "reasoning_text", "text": "hm", "x": None}]},
            {"role": "assistant", "content": [
                {"type": "refusal", "refusal": "no", "x": None}], "phase": None},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": None, "strict": None, "x": None},
                  {"type": "custom", "name": "g", "format": {"type": "text", "syntax": None}},
                  {"type": "namespace", "name": "n", "tools": None}],
        "text": {"format": None, "verbosity": None, "x": None}, "stream": None, "store": None,
        "stream_options": {"include_obfuscation": None, "include_cache": None, "x": None},
        "reasoning": {"effort": None, "summary": None}, "session": None, "instructions": None,
        "unknown": None,
    }  # fmt: skip
    request = parse_response(body)
    assert (request.noted, request.store, request.chat.grammar) == ((), True, None)
    assert [message["role"] for message in request.own] == ["user", "assistant"]
