"""The tools of a Messages body, and which of them an answer may, or must, call.

Goes out: the same `Tools` that OpenAI's chat becomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from octavo.errors import kind_of, unknown_option
from octavo.protocol.bodies import BodyError, Fields, read_kind
from octavo.protocol.messages.blocks import Marks
from octavo.protocol.rules import Switch, said
from octavo.protocol.tools.asked import (
    MOST_TOOLS,
    OF_CALLS,
    Choice,
    Tool,
    Tools,
    is_hosted,
    read_name,
    read_parameters,
    refuse_double_names,
)

OF_TOOL = ("type", "name", "description", "input_schema", "cache_control", "strict")
# Known to the API; what they may say here. Arguments are always streamed as they are written.
NOTHING: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "defer_loading": (False,),
        "allowed_callers": (["direct"], []),
        "input_examples": ([],),
        "eager_input_streaming": (True, False),
    }
)
CHOICES: Mapping[str, Choice] = MappingProxyType(
    {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
)

NEEDS_TOOLS = Switch(
    (said("tools", []),), "tools",
    only=(said("tool_choice", {"type": "auto"}, {"type": "none"}, text=OF_CALLS),),
)  # fmt: skip


def read_tools(fields: Fields, marks: Marks) -> Tools | None:
    """None where there are none. Raises BodyError."""
    given = read_kind(fields, "tools", list) or []
    if len(given) > MOST_TOOLS:
        raise BodyError(f"tools: {len(given)} of them: at most {MOST_TOOLS}", "tools")
    tools, places, noted = [], [], []
    for i, each in enumerate(given):
        where = f"tools[{i}]"
        tool = _read_tool(where, each, marks)
        if tool is None:
            noted.append(where)
        else:
            tools.append(tool)
            places.append(where)
    refuse_double_names(tools, places)
    choice, only, parallel = _read_choice(fields, [tool.name for tool in tools])
    if not given:
        return None
    return Tools(tuple(tools), choice, only, parallel, tuple(noted))


def _read_tool(where: str, tool: object, marks: Marks) -> Tool | None:
    """None for one that is only noted."""
    if not isinstance(tool, dict):
        raise BodyError(f"{where}: expected an object, found {kind_of(tool)}", where)
    kind = tool.get("type")
    if isinstance(kind, str) and is_hosted(kind):
        return None
    if kind not in (None, "custom"):
        why = f"tools of type {kind!r} are not supported: expected one with an input_schema"
        raise BodyError(f"{where}: {why}", f"{where}.type")
    for name, value in tool.items():
        place = f"{where}.{name}"
        if value is None or name in OF_TOOL:
            continue
        if name not in NOTHING:
            raise BodyError(f"{where}: {unknown_option('field', name, OF_TOOL)}", place)
        if not any(type(value) is type(each) and value == each for each in NOTHING[name]):
            raise BodyError(f"{place} is not supported: leave it out", place)
    marks.take(where, tool, ())
    if tool.get("input_schema") is None:
        place = f"{where}.input_schema"
        raise BodyError(f"{place}: expected the JSON schema of an object, found nothing", place)
    return Tool(
        read_name(f"{where}.name", tool.get("name")),
        read_kind(tool, "description", str, f"{where}.description"),
        read_parameters(f"{where}.input_schema", tool["input_schema"]),
        read_kind(tool, "strict", bool, f"{where}.strict") is True,
    )


def _read_choice(fields: Fields, names: list[str]) -> tuple[Choice, frozenset[str] | None, bool]:
    """The choice, the one tool that it names, and whether one answer may call several."""
    where = "tool_choice"
    given: dict[str, Any] | None = read_kind(fields, where, dict)
    if given is None:
        return "auto", None, True
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in CHOICES:
        found = repr(kind) if isinstance(kind, str) else kind_of(kind)
        expected = ", ".join(CHOICES)
        raise BodyError(f"{where}.type: expected one of {expected}, found {found}", f"{where}.type")
    known = ["type", "disable_parallel_tool_use"] + ["name"] * (kind == "tool")
    for name, value in given.items():
        if name not in known and value is not None:
            raise BodyError(f"{where}: {unknown_option('field', name, known)}", f"{where}.{name}")
    place = f"{where}.disable_parallel_tool_use"
    parallel = not read_kind(given, "disable_parallel_tool_use", bool, place)
    choice = CHOICES[kind]
    if choice == "required" and not names:
        raise BodyError(f"{where}: there are no tools to call", where)
    only = frozenset([_read_reference(given, names)]) if kind == "tool" else None
    return choice, only, parallel


def _read_reference(choice: Mapping[str, Any], names: list[str]) -> str:
    where = "tool_choice.name"
    name = choice.get("name")
    if not isinstance(name, str):
        raise BodyError(f"{where}: expected a string, found {kind_of(name)}", where)
    if name not in names:
        raise BodyError(f"{where}: {unknown_option('tool', name, names)}", where)
    return name
