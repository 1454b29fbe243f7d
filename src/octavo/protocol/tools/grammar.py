"""Calls as a grammar, for answers that must call: text in llguidance's dialect of Lark.

Comes in: what a format writes around calls. Goes out: the text. Knows no compiler and no format.
Blanks in arguments are those that models were trained on: one after each comma and colon.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from octavo.protocol.tools.asked import Tool, Tools

MOST_CALLS = 16  # a small model may never stop by itself
NAME = "\0"  # in `Around`: the name of the tool
_NO_ARGUMENTS = '"{}"'
_BLANKS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around calls: `before` has NAME in it."""

    before: str  # each call's arguments
    after: str
    first: str = ""  # the first call
    between: str = ""
    last: str = ""
    several: bool = True  # calls in one answer


def calls_grammar(tools: Tools, around: Around, control: Mapping[str, int]) -> str:
    """Lark text of the calls that `tools` allow. `control`: ids of the tags that are control
    tokens, which no text of other tokens is."""

    def text(plain: str) -> str:
        return _literal(plain, control)

    several = around.several and tools.parallel and not tools.is_named
    more = f" ({text(around.between)} call){{0,{MOST_CALLS - 1}}}" if several else ""
    numbers = range(len(tools.callable))
    lines = [
        f"start: {text(around.first)} call{more} {text(around.last)}",
        "call: " + " | ".join(f"call_{i}" for i in numbers),
    ]
    for i, tool in enumerate(tools.callable):
        before = text(around.before.replace(NAME, tool.name))
        lines.append(f"call_{i}: {before} arguments_{i} {text(around.after)}")
        lines.append(f"arguments_{i}: {_arguments(tool)}")
    return "\n".join(lines) + "\n"


def _arguments(tool: Tool) -> str:
    if tool.parameters is None:
        return _NO_ARGUMENTS
    schema = {**tool.parameters, "type": "object", "x-guidance": _BLANKS}
    return f"%json {json.dumps(schema)}"


def _literal(text: str, control: Mapping[str, int]) -> str:
    """A text in a rule, its control tokens by id."""
    tag = next((tag for tag in control if tag in text), None)
    if tag is None:
        return json.dumps(text)
    before, _, after = text.partition(tag)
    return f"{_literal(before, control)} <[{control[tag]}]> {_literal(after, control)}"
