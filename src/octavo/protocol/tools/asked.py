"""The tools of a request: which there are, and which of them an answer may, or must, call.

Comes in: the fields `tools`, `tool_choice` and `parallel_tool_calls` in the shape of OpenAI's chat.
Goes out: `Tools`, which the other APIs' readers make too. Knows no formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from octavo.errors import kind_of, unknown_option
from octavo.protocol.bodies import (
    BodyError,
    Fields,
    read_flag,
    read_kind,
    read_object,
    refuse_unknown,
)
from octavo.protocol.rules import Switch, said

MOST_TOOLS = 128
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
# What clients send beside their functions and only a provider's own machines can do.
HOSTED = ("web_search", "file_search", "image_generation", "code_interpreter", "code_execution")
HOSTED_WHOLE = ("mcp",)
OF_TOOL = ("type", "function")
OF_FUNCTION = ("name", "description", "parameters", "strict")

Choice = Literal["none", "auto", "required"]
CHOICES: tuple[Choice, ...] = ("none", "auto", "required")
OF_CALLS = "`tool_choice` but auto and none"
NEEDS_TOOLS = Switch(
    (said("tools", []),), "tools", only=(said("tool_choice", "none", "auto", text=OF_CALLS),)
)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None  # a JSON schema of an object; None: it takes none
    strict: bool = False
    rule: str | None = None  # what its arguments have to be in Lark, beside what their schema says

    def for_template(self) -> dict[str, Any]:
        """As chat templates read it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        function["parameters"] = self.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tools:
    every: tuple[Tool, ...]
    choice: Choice = "auto"
    only: frozenset[str] | None = None  # the names that may be called; None: every one
    parallel: bool = True  # several calls in one answer
    noted: tuple[str, ...] = field(default=())  # where tools stand that only a provider has

    @property
    def callable(self) -> tuple[Tool, ...]:
        if self.choice == "none":
            return ()
        return tuple(t for t in self.every if self.only is None or t.name in self.only)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self.callable)

    @property
    def is_named(self) -> bool:
        """One tool must be called, once."""
        return self.choice == "required" and self.only is not None and len(self.only) == 1

    @property
    def told(self) -> tuple[Tool, ...]:
        """The tools that the model is told of: of one it must not call, nothing."""
        return () if self.choice == "none" else self.every


def read_tools(fields: Fields) -> Tools | None:
    """The tools of a chat; None where there are none. Raises BodyError."""
    given = read_kind(fields, "tools", list) or []
    if len(given) > MOST_TOOLS:
        raise BodyError(f"tools: {len(given)} of them: at most {MOST_TOOLS}", "tools")
    read = [read_tool(f"tools[{i}]", each) for i, each in enumerate(given)]
    tools = tuple(tool for tool in read if tool is not None)
    refuse_double_names(tools, [f"tools[{i}]" for i, tool in enumerate(read) if tool is not None])
    choice, only = _read_choice(fields.get("tool_choice"), [tool.name for tool in tools])
    parallel = fields.get("parallel_tool_calls") is None or read_flag(fields, "parallel_tool_calls")
    noted = tuple(f"tools[{i}]" for i, tool in enumerate(read) if tool is None)
    if not tools and not noted:
        return None
    return Tools(tools, choice, only, parallel, noted)


def read_tool(where: str, tool: object) -> Tool | None:
    """One tool in the shape of OpenAI's chat; None for one that is only noted."""
    tool = read_object(where, tool)
    kind = tool.get("type")
    if isinstance(kind, str) and is_hosted(kind):
        return None
    if kind != "function":
        found = f"tools of type {kind!r} are not supported" if isinstance(kind, str) else "no tool"
        raise BodyError(f'{where}: {found}: expected {{"type": "function", …}}', f"{where}.type")
    refuse_unknown(where, tool, OF_TOOL)
    where = f"{where}.function"
    function = read_object(where, tool.get("function"))
    refuse_unknown(where, function, OF_FUNCTION)
    return Tool(
        read_name(f"{where}.name", function.get("name")),
        read_kind(function, "description", str, f"{where}.description"),
        read_parameters(f"{where}.parameters", function.get("parameters")),
        read_kind(function, "strict", bool, f"{where}.strict") is True,
    )


def is_hosted(kind: str) -> bool:
    """Tools of this type run on a provider's machines: they are noted, and change no answer."""
    return kind.startswith(HOSTED) or kind in HOSTED_WHOLE


def read_name(where: str, name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        found = repr(name) if isinstance(name, str) else kind_of(name)
        raise BodyError(
            f"{where}: expected 1 to 128 letters, digits, '_', '-' or '.', found {found}", where
        )
    return name


def read_parameters(where: str, schema: object) -> Mapping[str, Any] | None:
    """The schema of a tool's arguments, which are an object; None for none at all."""
    if schema is None:
        return None
    found = read_object(where, schema)
    if found.get("type", "object") != "object":
        raise BodyError(f'{where}.type: expected "object"', f"{where}.type")
    return found or None


def refuse_double_names(tools: Sequence[Tool], places: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for tool, place in zip(tools, places, strict=True):
        if tool.name in seen:
            raise BodyError(f"{place}: {tool.name!r} is the name of {seen[tool.name]} too", place)
        seen[tool.name] = place


def _read_choice(choice: object, names: Sequence[str]) -> tuple[Choice, frozenset[str] | None]:
    where = "tool_choice"
    only: frozenset[str] | None = None
    if choice is None:
        return "auto", None
    if isinstance(choice, Mapping):
        mode, only = _read_named(where, choice, names)
    else:
        mode = _read_mode(where, choice)
    if mode == "required" and not names:
        raise BodyError(f"{where}: there are no tools to call", where)
    return mode, only


def _read_mode(where: str, choice: object) -> Choice:
    for each in CHOICES:
        if each == choice:
            return each
    found = repr(choice) if isinstance(choice, str) else kind_of(choice)
    expected = f"{', '.join(CHOICES)} or a function's name as an object"
    raise BodyError(f"{where}: expected {expected}, found {found}", where)


def _read_named(
    where: str, choice: Mapping[Any, Any], names: Sequence[str]
) -> tuple[Choice, frozenset[str]]:
    kind = choice.get("type")
    if kind == "function":
        refuse_unknown(where, choice, OF_TOOL)
        return "required", frozenset([_read_reference(where, choice, names)])
    if kind != "allowed_tools":
        found = repr(kind) if isinstance(kind, str) else kind_of(kind)
        raise BodyError(f'{where}.type: expected "function", found {found}', f"{where}.type")
    refuse_unknown(where, choice, ("type", "allowed_tools"))
    where = f"{where}.allowed_tools"
    allowed = read_object(where, choice.get("allowed_tools"))
    refuse_unknown(where, allowed, ("mode", "tools"))
    mode = next((each for each in ("auto", "required") if each == allowed.get("mode")), None)
    if mode is None:
        raise BodyError(f"{where}.mode: expected auto or required", f"{where}.mode")
    listed = read_kind(allowed, "tools", list, f"{where}.tools")
    if not listed:
        raise BodyError(f"{where}.tools: expected at least one", f"{where}.tools")
    places = [f"{where}.tools[{i}]" for i in range(len(listed))]
    found_names = [
        _read_reference(place, read_object(place, each), names)
        for place, each in zip(places, listed, strict=True)
    ]
    return ("auto" if mode == "auto" else "required"), frozenset(found_names)


def _read_reference(where: str, reference: Mapping[Any, Any], names: Sequence[str]) -> str:
    where = f"{where}.function"
    function = read_object(where, reference.get("function"))
    refuse_unknown(where, function, ("name",))
    where = f"{where}.name"
    name = function.get("name")
    if not isinstance(name, str):
        raise BodyError(f"{where}: expected a string, found {kind_of(name)}", where)
    if name not in names:
        raise BodyError(f"{where}: {unknown_option('tool', name, names or ['none'])}", where)
    return name
