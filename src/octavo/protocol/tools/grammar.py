"""Calls as a grammar, for answers that must call, for strict tools, and for answers that are calls
or else keep a grammar of their own: text in llguidance's Lark.

Comes in: what a format writes around calls. Goes out: the text. Knows no compiler and no format.
Blanks in arguments are those that models were trained on: one after each comma and colon.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.errors import GrammarError
from octavo.grammar.spec import read_schema
from octavo.protocol.bodies import BodyError
from octavo.protocol.tools.asked import Tool, Tools

MOST_CALLS = 16  # a small model may never stop by itself
NAME = "\0"  # in `Around`: the name of the tool
TEXT = r"TEXT: /(.|\n)*/"  # any, of tokens that are no control tokens
_NO_ARGUMENTS = '"{}"'
_OPENS = frozenset(
    {
        *("additionalProperties", "patternProperties", "unevaluatedProperties"),
        *("allOf", "anyOf", "oneOf", "$ref", "if", "dependentSchemas"),
    }
)
_PIECES = re.compile(r'"[^"]*"|.', re.DOTALL)  # of JSON, as grammars of schemas cut it
_BLANKS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around calls: `before` has NAME in it."""

    tag: str  # what opens a call, or the list of them; "": only the beginning of an answer does
    before: str  # each call's arguments
    after: str
    first: str = ""  # behind the tag, before the first call
    between: str | None = None  # of a list; None: each call has its own tag
    last: str = ""
    separator: str = ""  # between calls that have their own
    several: bool = True  # calls in one answer


def calls_grammar(tools: Tools, around: Around, control: Mapping[str, int]) -> str:
    """Lark text of answers that are calls alone, as `tools` allow them. `control`: ids of the tags
    that are control tokens, which no text of other tokens is."""
    return _alone(tools, around, control, call_rules(tools, around, control))


def calls_beside(tools: Tools, around: Around, control: Mapping[str, int]) -> str:
    """Return the Lark text of answers that may be calls or else what another grammar says: only
    strict tools keep their schemas, as in answers that nothing holds."""
    rules = call_rules(tools, around, control, only_strict=True, is_beside=True)
    return _alone(tools, around, control, rules)


def _alone(tools: Tools, around: Around, control: Mapping[str, int], rules: Sequence[str]) -> str:
    tag, separator = literal(around.tag, control), literal(around.separator, control)
    again = ""
    if _most(tools, around) > 1 and around.between is None:
        again = f" ({separator} {tag} calls){{0,{MOST_CALLS - 1}}}"
    return "\n".join([f"start: {tag} calls{again}", *rules]) + "\n"


def strict_grammar(tools: Tools, around: Around, control: Mapping[str, int]) -> str:
    """Lark text of answers in which whatever begins as a call is one."""
    if not around.tag:
        start = ["start: calls | OTHER?", r"OTHER: /[ \n]*[^{ \n](.|\n)*/"]
    else:
        start = [
            "start: (opened calls)* TEXT",
            text_up_to("opened", around.tag, control),
            TEXT,
        ]
    return "\n".join([*start, *call_rules(tools, around, control, only_strict=True)]) + "\n"


def text_up_to(rule: str, tag: str, control: Mapping[str, int]) -> str:
    """Return the rule of a text and the tag that ends it: the first one, where it is text too."""
    return f"{rule}{'' if tag in control else '[lazy]'}: TEXT {literal(tag, control)}"


def call_rules(
    tools: Tools,
    around: Around,
    control: Mapping[str, int],
    *,
    only_strict: bool = False,
    is_beside: bool = False,
) -> list[str]:
    """Return the rules of `calls`, behind the tag. `only_strict`: the other tools take any object;
    `is_beside`: the first of them stands where another grammar may begin."""

    def text(plain: str) -> str:
        return literal(plain, control)

    more = ""
    if around.between is not None and _most(tools, around) > 1:
        more = f" ({text(around.between)} call){{0,{MOST_CALLS - 1}}}"
    numbers = range(len(tools.callable))
    lines = [
        f"calls: {text(around.first)} call{more} {text(around.last)}",
        "call: " + " | ".join(f"call_{i}" for i in numbers),
    ]
    for i, tool in enumerate(tools.callable):
        before = around.before.replace(NAME, tool.name)
        # Without a tag both grammars begin alike, and are told apart by whole words of theirs.
        before = _in_pieces(before) if is_beside and not around.tag else text(before)
        lines.append(f"call_{i}: {before} arguments_{i} {text(around.after)}")
        lines.append(f"arguments_{i}: {_arguments(tool, free=only_strict and not tool.strict)}")
    return lines


def _most(tools: Tools, around: Around) -> int:
    return MOST_CALLS if around.several and tools.parallel and not tools.is_named else 1


def _arguments(tool: Tool, *, free: bool) -> str:
    if tool.rule is not None:
        return tool.rule
    if tool.parameters is None and not free:
        return _NO_ARGUMENTS
    schema = {} if free else _closed(_checked(tool))
    return f"%json {json.dumps({**schema, 'type': 'object', 'x-guidance': _BLANKS})}"


def _checked(tool: Tool) -> Mapping[str, Any]:
    """The schema of its arguments, which keeps the limits of grammars. Raises BodyError."""
    schema = {} if tool.parameters is None else tool.parameters
    try:
        return read_schema(json.dumps(schema))
    except GrammarError as error:
        raise BodyError(f"tools: parameters of {tool.name!r}: {error}", "tools") from None


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without properties that nobody named, where the schema leaves that open: a small model would
    go on to invent some."""
    if "properties" not in schema or not _OPENS.isdisjoint(schema):
        return schema
    return {**schema, "additionalProperties": False}


def _in_pieces(text: str) -> str:
    """JSON in a rule, cut as a schema's grammar cuts it; that may take the blanks for itself."""
    pieces = ['" "?' if each == " " else json.dumps(each) for each in _PIECES.findall(text)]
    return " ".join(pieces)


def literal(text: str, control: Mapping[str, int]) -> str:
    """Return a text in a rule, its control tokens by id."""
    tag = next((tag for tag in control if tag in text), None)
    if tag is None:
        return json.dumps(text)
    before, _, after = text.partition(tag)
    return f"{literal(before, control)} <[{control[tag]}]> {literal(after, control)}"
