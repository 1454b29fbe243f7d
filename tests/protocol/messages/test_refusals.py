"""/v1/messages: bodies that are wrong somewhere, and where it is said to be."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.messages.request import parse_messages
from tests.protocol.messages.asked import ADD, EPHEMERAL, USER, refusal, text, user

BASH = {"type": "bash_20250124", "name": "bash"}


@pytest.mark.parametrize(
    ("fields", "said", "param"),
    [({"max_token": 5}, "unknown field 'max_token'; did you mean max_tokens", "max_token"),
     ({"max_tokens": -1}, "max_tokens=-1: expected a whole number", "max_tokens"),
     ({"max_tokens": None}, "max_tokens is missing", "max_tokens"),
     ({"messages": []}, "messages: expected at least one", "messages"),
     ({"container": "c"}, "container is not supported: leave it out", "container"),
     ({"mcp_servers": [{}]}, "mcp_servers is not supported", "mcp_servers"),
     ({"stop_sequences": [1]}, "stop_sequences=(1,): ", "stop_sequences"),
     ({"system": [{"type": "image"}]}, "system[0]: blocks of type 'image' are not supported",
      "system[0].type"),
     ({"tools": [BASH]}, "tools[0]: tools of type 'bash_20250124' are not s", "tools[0].type"),
     ({"tools": [{"name": "a"}]}, "tools[0].input_schema: expected the ", "tools[0].input_schema"),
     ({"tools": [{**ADD, "defer_loading": True}]}, "tools[0].defer_loading is not supported",
      "tools[0].defer_loading"),
     ({"tools": [ADD, ADD]}, "tools[1]: 'add' is the name of tools[0] too", "tools[1]"),
     ({"tool_choice": {"type": "any"}}, "tool_choice: there are no tools to call", "tool_choice"),
     ({"tools": [ADD], "tool_choice": {"type": "tool", "name": "ad"}},
      "tool_choice.name: unknown tool 'ad'; did you mean add?", "tool_choice.name"),
     ({"tools": [ADD], "tool_choice": {"type": "required"}},
      "tool_choice.type: expected one of auto, any, tool, none, found 'required'",
      "tool_choice.type"),
     ({"thinking": {"type": "between_tools"}}, "thinking.type: expected one of enabled, ",
      "thinking.type"),
     ({"thinking": {"type": "disabled", "budget_tokens": 5}},
      "thinking: unknown field 'budget_tokens'", "thinking.budget_tokens"),
     ({"output_config": {"effort": "extreme"}}, "output_config.effort: expected one of low, ",
      "output_config.effort"),
     ({"output_config": {"format": {"type": "yaml"}}}, "output_config.format",
      "output_config.format.type"),
     ({"cache_control": {"type": "forever"}}, "cache_control: expected ", "cache_control")],
)  # fmt: skip
def test_fields_that_are_wrong_are_named(fields: dict[str, Any], said: str, param: str) -> None:
    found, where = refusal(**{"messages": [USER], **fields})
    assert found.startswith(said)
    assert where == param


TWO_HOURS = {"type": "ephemeral", "ttl": "2h"}
NO_TIME = {"type": "ephemeral", "ttl": []}


@pytest.mark.parametrize(
    ("block", "said", "name"),
    [({"type": "image", "source": {}}, ": blocks of type 'image' are not supported here: expected"
      " one of text, tool_result", ".type"),
     ({"text": "x"}, ": no block here: expected one of text, tool_result", ".type"),
     ("x", ": expected an object, found a string", ""),
     (text("x", citations=[{}]), ".citations is not supported", ".citations"),
     (text("x", txt=1), ": unknown field 'txt'; did you mean text", ".txt"),
     (text("x", cache_control=TWO_HOURS), ".cache_control: expected ", ".cache_control"),
     (text("x", cache_control=NO_TIME), ".cache_control: expected ", ".cache_control"),
     ({"type": "text"}, ".text: expected a string, found null", ".text"),
     ({"type": "tool_result", "content": "x"}, ".tool_use_id: expected a string, found null",
      ".tool_use_id"),
     ({"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image"}]},
      ".content[0]: blocks of type 'image' are not supported", ".content[0].type")],
)  # fmt: skip
def test_blocks_that_are_wrong_are_named(block: object, said: str, name: str) -> None:
    found, where = refusal(user(text("fine"), block))
    assert found.startswith(f"messages[0].content[1]{said}")
    assert where == f"messages[0].content[1]{name}"


@pytest.mark.parametrize(
    ("message", "said", "param"),
    [("hi", "messages[0]: expected an object, found a string", "messages[0]"),
     ({"role": "tool", "content": "x"}, "messages[0].role: expected one of user, assistant, ",
      "messages[0].role"),
     ({"role": "user"}, "messages[0].content: expected a string or blocks, found null",
      "messages[0].content"),
     ({"role": "user", "content": []}, "messages[0].content: expected a string or blocks, found an "
      "empty list", "messages[0].content")],
)  # fmt: skip
def test_messages_that_are_wrong_are_named(message: object, said: str, param: str) -> None:
    found, where = refusal(message)
    assert found.startswith(said)
    assert where == param


def test_a_fifth_mark_is_refused() -> None:
    marked = user(*[text("x", cache_control=EPHEMERAL)] * 5)
    assert refusal(marked)[1] == "messages[0].content[4].cache_control"


WHOLE: dict[str, Any] = {
    "model": "m", "max_tokens": 5, "stream": False, "stop_sequences": ["END"], "temperature": 1,
    "system": [text("s", cache_control=EPHEMERAL)], "tools": [{**ADD, "strict": True}],
    "tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "cache_control": {"type": "ephemeral", "ttl": "1h"}, "metadata": {"user_id": "u"},
    "messages": [
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "tool_use", "id": "c", "name": "add", "input": {"a": [1]}}]},
        user({"type": "tool_result", "tool_use_id": "c", "content": [text("3")]}),
    ],
}  # fmt: skip
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"type": []},
    {"type": "x"},
]


def places(value: object) -> list[tuple[Any, ...]]:
    """The paths to all that is in it."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    return [(), *((key, *rest) for key, each in inner for rest in places(each))]


def with_odd(value: Any, path: tuple[Any, ...], odd: object) -> Any:
    if not path:
        return odd
    copy = value.copy()
    copy[path[0]] = with_odd(value[path[0]], path[1:], odd)
    return copy


@pytest.mark.parametrize("path", places(WHOLE), ids=str)
def test_whatever_stands_anywhere_is_read_or_refused(path: tuple[Any, ...]) -> None:
    assert parse_messages(WHOLE).chat.tools is not None
    for odd in ODD:
        with suppress(BodyError):
            parse_messages(with_odd(WHOLE, path, odd))


def test_thinking_that_nobody_can_read_is_no_conversation() -> None:
    block = {"type": "redacted_thinking", "data": "x"}
    with pytest.raises(BodyError, match="messages: expected a text in one of them"):
        parse_messages({"max_tokens": 1, "messages": [{"role": "assistant", "content": [block]}]})
