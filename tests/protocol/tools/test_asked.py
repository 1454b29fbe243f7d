"""The tools of a request: what is read, and what is refused by its whole path."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.tools.asked import Tool, Tools, read_tools

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
F: dict[str, Any] = {"name": "f", "description": "Does f", "parameters": SCHEMA, "strict": True}
G: dict[str, Any] = {"name": "g"}


def tool(function: object, **more: object) -> dict[str, object]:
    return {"type": "function", "function": function, **more}


def read(*functions: object, **fields: object) -> Tools:
    found = read_tools({"tools": [tool(each) for each in functions], **fields})
    assert found is not None
    return found


def test_functions_and_how_templates_read_them() -> None:
    found = read(F, {**G, "parameters": {}, "description": None})
    assert found == Tools((Tool("f", "Does f", SCHEMA, True), Tool("g")))
    assert [each.for_template() for each in found.every] == [
        tool({"name": "f", "description": "Does f", "parameters": SCHEMA}),
        tool({"name": "g", "parameters": {"type": "object", "properties": {}}}),
    ]


def test_no_tools_ask_for_nothing() -> None:
    given: list[dict[str, object]] = [{}, {"tools": []}, {"tools": [], "tool_choice": "none"}]
    for fields in given:
        assert read_tools(fields) is None


def test_what_may_be_called_and_what_the_model_is_told_of() -> None:
    def asked(choice: object) -> tuple[str, set[str], int, bool]:
        found = read(F, G, tool_choice=choice)
        return found.choice, set(found.names), len(found.told), found.is_named

    by_name = {"type": "function", "function": {"name": "g"}}
    listed = {"mode": "auto", "tools": [by_name]}
    assert asked(None) == asked("auto") == ("auto", {"f", "g"}, 2, False)
    assert asked("none") == ("none", set(), 0, False)
    assert asked("required") == ("required", {"f", "g"}, 2, False)
    assert asked(by_name) == ("required", {"g"}, 2, True)
    assert asked({"type": "allowed_tools", "allowed_tools": listed}) == ("auto", {"g"}, 2, False)
    assert read(F).parallel
    assert not read(F, parallel_tool_calls=False).parallel


def test_tools_that_only_a_provider_has_are_noted() -> None:
    hosted = [{"type": "web_search_preview", "user_location": {}}, {"type": "mcp"}]
    found = read_tools({"tools": [hosted[0], tool(G), hosted[1]]})
    assert found == Tools((Tool("g"),), noted=("tools[0]", "tools[2]"))
    alone = read_tools({"tools": hosted})
    assert alone is not None
    assert (alone.every, alone.noted) == ((), ("tools[0]", "tools[1]"))


NAMED = "tools[0].function.name: expected 1 to 128 letters, digits, '_', '-' or '.', found "
BAD_TOOLS = [
    ([5], "tools[0]: expected an object, found a whole number", "tools[0]"),
    ([{}], 'tools[0]: no tool: expected {"type": "function", …}', "tools[0].type"),
    ([{"type": "computer_use_preview"}], "tools[0]: tools of type 'computer_use_preview' are not "
     'supported: expected {"type": "function", …}', "tools[0].type"),
    ([tool(G, x=1)], "tools[0]: unknown field 'x'; known: type, function", "tools[0].x"),
    ([tool(None)], "tools[0].function: expected an object, found null", "tools[0].function"),
    ([tool({**G, "paramters": {}})], "tools[0].function: unknown field 'paramters'; did you mean "
     "parameters?", "tools[0].function.paramters"),
    ([tool({"name": ""})], NAMED + "''", "tools[0].function.name"),
    ([tool({"name": "a b"})], NAMED + "'a b'", "tools[0].function.name"),
    ([tool({})], NAMED + "null", "tools[0].function.name"),
    ([tool({**G, "description": 1})], "tools[0].function.description: expected a string, found a "
     "whole number", "tools[0].function.description"),
    ([tool({**G, "parameters": []})], "tools[0].function.parameters: expected an object, found a "
     "list", "tools[0].function.parameters"),
    ([tool({**G, "parameters": {"type": "array"}})],
     'tools[0].function.parameters.type: expected "object"', "tools[0].function.parameters.type"),
    ([tool({**G, "strict": "yes"})], "tools[0].function.strict: expected true or false, found a "
     "string", "tools[0].function.strict"),
    ([tool(F), {"type": "mcp"}, tool(F)], "tools[2]: 'f' is the name of tools[0] too", "tools[2]"),
    ([tool(G)] * 129, "tools: 129 of them: at most 128", "tools"),
    ({}, "tools: expected a list, found an object", "tools"),
]  # fmt: skip


@pytest.mark.parametrize(("tools", "said", "param"), BAD_TOOLS)
def test_a_tool_that_cannot_be_read_is_named(tools: object, said: str, param: str) -> None:
    with pytest.raises(BodyError) as caught:
        read_tools({"tools": tools})
    assert (str(caught.value), caught.value.param) == (said, param)


def allowed(mode: object, *tools: object) -> dict[str, object]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


LISTED = "tool_choice.allowed_tools"
BAD_CHOICES = [
    ("any", "tool_choice: expected none, auto, required or a function's name as an object, found "
     "'any'", "tool_choice"),
    (1, "tool_choice: expected none, auto, required or a function's name as an object, found a "
     "whole number", "tool_choice"),
    ({"type": "custom"}, "tool_choice.type: expected \"function\", found 'custom'",
     "tool_choice.type"),
    ({"type": "function"}, "tool_choice.function: expected an object, found null",
     "tool_choice.function"),
    (tool({"name": "gg"}), "tool_choice.function.name: unknown tool 'gg'; did you mean g?",
     "tool_choice.function.name"),
    (tool({}), "tool_choice.function.name: expected a string, found null",
     "tool_choice.function.name"),
    (tool({"name": "g", "x": 1}), "tool_choice.function: unknown field 'x'; known: name",
     "tool_choice.function.x"),
    (allowed("any", tool(G)), f"{LISTED}.mode: expected auto or required", f"{LISTED}.mode"),
    (allowed("auto"), f"{LISTED}.tools: expected at least one", f"{LISTED}.tools"),
    (allowed("auto", tool(G), tool({"name": "h"})),
     f"{LISTED}.tools[1].function.name: unknown tool 'h'; known: f, g",
     f"{LISTED}.tools[1].function.name"),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "said", "param"), BAD_CHOICES)
def test_a_choice_that_cannot_be_read_is_named(choice: object, said: str, param: str) -> None:
    with pytest.raises(BodyError) as caught:
        read(F, G, tool_choice=choice)
    assert (str(caught.value), caught.value.param) == (said, param)


def test_a_call_is_not_required_where_there_are_no_tools() -> None:
    for fields in ({}, {"tools": [{"type": "mcp"}]}):
        with pytest.raises(BodyError, match=r"^tool_choice: there are no tools to call$"):
            read_tools({**fields, "tool_choice": "required"})
    with pytest.raises(BodyError, match="parallel_tool_calls: expected true or false"):
        read(F, parallel_tool_calls=1)
