"""The tools of a Responses body: functions, custom tools and namespaces of them.

Comes in: the fields `tools`, `tool_choice` and `parallel_tool_calls`. Goes out: `Tools`, as every
chat has them, and of each name that a model is told who is meant: a tool of a namespace is told
under both names, and a custom tool as a function of one string. Knows no templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.errors import GrammarError, unknown_option
from octavo.protocol.bodies import (
    BodyError,
    Fields,
    read_flag,
    read_kind,
    read_object,
    refuse_unknown,
)
from octavo.protocol.responses.custom_input import ARGUMENT
from octavo.protocol.responses.json_lark import lark_in_json
from octavo.protocol.tools.asked import (
    MOST_TOOLS,
    Choice,
    Tool,
    Tools,
    is_hosted,
    read_name,
    read_parameters,
    refuse_double_names,
)

_WHEN = ("defer_loading", "allowed_callers", "async", "output_schema")  # only some values ask
OF_FUNCTION = ("type", "name", "description", "parameters", "strict", *_WHEN)
OF_CUSTOM = ("type", "name", "description", "format", *_WHEN)
OF_NAMESPACE = ("type", "name", "description", "tools")
_FORMATS = ("text", "grammar")
OF_GRAMMAR = ("type", "syntax", "definition")
_SYNTAXES = ("regex", "lark")
MODES: tuple[Choice, ...] = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Target:
    """Who is called by a name that the model was told."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    tools: Tools | None = None
    targets: Mapping[str, Target] = field(
        default_factory=dict
    )  # by the names that the model is told

    def target(self, name: str) -> Target:
        return self.targets.get(name) or Target(name)


def told_name(name: str, namespace: str | None) -> str:
    return name if namespace is None else f"{namespace}__{name}"


def read_tools(fields: Fields) -> Told:
    """Raises BodyError."""
    given = read_kind(fields, "tools", list) or []
    found: list[tuple[str, Tool, Target]] = []
    noted: list[str] = []
    for i, each in enumerate(given):
        read = _read_any(f"tools[{i}]", each)
        found += read or []
        noted += [f"tools[{i}]"] if read is None else []
    if len(found) > MOST_TOOLS:
        raise BodyError(f"tools: {len(found)} of them: at most {MOST_TOOLS}", "tools")
    tools = tuple(tool for _, tool, _ in found)
    refuse_double_names(tools, [place for place, _, _ in found])
    targets = {tool.name: target for _, tool, target in found}
    choice, only = _read_choice(fields.get("tool_choice"), targets)
    if not given:
        return Told()
    parallel = fields.get("parallel_tool_calls") is None or read_flag(fields, "parallel_tool_calls")
    return Told(Tools(tools, choice, only, parallel, tuple(noted)), targets)


def _read_any(where: str, tool: object) -> list[tuple[str, Tool, Target]] | None:
    """One tool, or those of a namespace; None for one that is only noted. Raises BodyError."""
    given = read_object(where, tool)
    kind = given.get("type")
    if isinstance(kind, str) and is_hosted(kind):
        return None
    if kind != "namespace":
        return [_read_tool(where, given)]
    refuse_unknown(where, given, OF_NAMESPACE)
    namespace = read_name(f"{where}.name", given.get("name"))
    about = read_kind(given, "description", str, f"{where}.description")
    inner = read_kind(given, "tools", list, f"{where}.tools") or []
    return [
        _in_namespace(_read_tool(place, read_object(place, each)), namespace, about)
        for place, each in ((f"{where}.tools[{i}]", each) for i, each in enumerate(inner))
    ]


def _in_namespace(
    read: tuple[str, Tool, Target], namespace: str, about: str | None
) -> tuple[str, Tool, Target]:
    place, tool, target = read
    texts = [text for text in (about, tool.description) if text]
    name = read_name(f"{place}.name", told_name(tool.name, namespace))
    own = replace(tool, name=name, description="\n".join(texts) or None)
    return place, own, replace(target, namespace=namespace)


def _read_tool(where: str, given: Mapping[str, Any]) -> tuple[str, Tool, Target]:
    kind = given.get("type")
    if kind not in ("function", "custom"):
        found = f"tools of type {kind!r} are not supported" if isinstance(kind, str) else "no tool"
        expected = "a function, a custom tool or a namespace"
        raise BodyError(f"{where}: {found}: expected {expected}", f"{where}.type")
    refuse_unknown(where, given, OF_FUNCTION if kind == "function" else OF_CUSTOM)
    if read_kind(given, "defer_loading", bool, f"{where}.defer_loading"):
        place = f"{where}.defer_loading"
        raise BodyError(f"{place} is not supported: leave it out", place)
    name = read_name(f"{where}.name", given.get("name"))
    about = read_kind(given, "description", str, f"{where}.description")
    if kind == "custom":
        schema, rule = _read_format(f"{where}.format", given.get("format"))
        # Strict, so that there is one text, and no more.
        return (
            where,
            Tool(name, about, schema, strict=True, rule=rule),
            Target(name, is_custom=True),
        )
    parameters = read_parameters(f"{where}.parameters", given.get("parameters"))
    strict = read_kind(given, "strict", bool, f"{where}.strict") is True
    return where, Tool(name, about, parameters, strict), Target(name)


def _read_format(where: str, format_: object) -> tuple[Mapping[str, Any], str | None]:
    """The schema of a custom tool's one argument, and of a Lark grammar the rule."""
    text: dict[str, Any] = {"type": "string"}
    schema = {"type": "object", "properties": {ARGUMENT: text}, "required": [ARGUMENT]}
    if format_ is None:
        return schema, None
    given = read_object(where, format_)
    kind = given.get("type")
    if kind not in _FORMATS:
        expected = " or ".join(_FORMATS)
        raise BodyError(f"{where}.type: expected {expected}", f"{where}.type")
    if kind == "text":
        refuse_unknown(where, given, ("type",))
        return schema, None
    refuse_unknown(where, given, OF_GRAMMAR)
    syntax, place = given.get("syntax"), f"{where}.definition"
    if syntax not in _SYNTAXES:
        raise BodyError(f"{where}.syntax: expected {' or '.join(_SYNTAXES)}", f"{where}.syntax")
    definition = read_kind(given, "definition", str, place)
    if not definition:
        raise BodyError(f"{place}: expected a grammar", place)
    if syntax == "lark":
        return schema, _rule(place, definition)
    text["pattern"] = f"^(?:{definition})$"
    return schema, None


def _rule(where: str, definition: str) -> str:
    try:
        inner = lark_in_json(definition)
    except GrammarError as error:
        raise BodyError(f"{where}: {error}", where) from None
    opening = json.dumps(f'{{"{ARGUMENT}": "')
    return f"{opening} %lark {{\n{inner}\n}} {json.dumps(chr(34) + chr(125))}"


def _read_choice(
    choice: object, targets: Mapping[str, Target]
) -> tuple[Choice, frozenset[str] | None]:
    where = "tool_choice"
    if choice is None:
        return "auto", None
    only: frozenset[str] | None = None
    if isinstance(choice, str):
        mode = next((each for each in MODES if each == choice), None)
        if mode is None:
            expected = f"{', '.join(MODES)} or a tool's name as an object"
            raise BodyError(f"{where}: expected {expected}, found {choice!r}", where)
    else:
        given = read_object(where, choice)
        if given.get("type") == "allowed_tools":
            mode, only = _read_allowed(where, given, targets)
        else:
            mode, only = "required", frozenset([_read_reference(where, given, targets)])
    if mode == "required" and not targets:
        raise BodyError(f"{where}: there are no tools to call", where)
    return mode, only


def _read_allowed(
    where: str, given: Mapping[str, Any], targets: Mapping[str, Target]
) -> tuple[Choice, frozenset[str]]:
    refuse_unknown(where, given, ("type", "mode", "tools"))
    mode = given.get("mode")
    if mode not in ("auto", "required"):
        raise BodyError(f"{where}.mode: expected auto or required", f"{where}.mode")
    listed = read_kind(given, "tools", list, f"{where}.tools") or []
    places = [f"{where}.tools[{i}]" for i in range(len(listed))]
    pairs = [(place, read_object(place, each)) for place, each in zip(places, listed, strict=True)]
    names = [
        _read_reference(place, each, targets)
        for place, each in pairs
        if not (isinstance(each.get("type"), str) and is_hosted(each["type"]))
    ]
    if not names:
        raise BodyError(f"{where}.tools: expected at least one", f"{where}.tools")
    return ("auto" if mode == "auto" else "required"), frozenset(names)


def _read_reference(where: str, given: Mapping[str, Any], targets: Mapping[str, Target]) -> str:
    """The name that the model is told of the tool that is meant."""
    if given.get("type") not in ("function", "custom"):
        place = f"{where}.type"
        raise BodyError(f"{place}: expected function, custom or allowed_tools", place)
    refuse_unknown(where, given, ("type", "name", "namespace"))
    name = read_kind(given, "name", str, f"{where}.name")
    namespace = read_kind(given, "namespace", str, f"{where}.namespace")
    if name is None:
        raise BodyError(f"{where}.name: expected the name of a tool", f"{where}.name")
    told = told_name(name, namespace)
    if told not in targets:
        why = unknown_option("tool", told, list(targets) or ["none"])
        raise BodyError(f"{where}.name: {why}", f"{where}.name")
    return told
