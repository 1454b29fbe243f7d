"""Grammars of answers in channels: what a request asks for holds the final message, or the
arguments of calls, and reasoning before it is free.

Comes in: what the body asks the answer to be, and its tools. Goes out: one GrammarSpec, or none.
A call ends an answer, so that there is one where a grammar holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from octavo.grammar import GrammarSpec
from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.grammar import (
    NAME,
    TEXT,
    Around,
    call_rules,
    literal,
    text_up_to,
)
from octavo.protocol.tools.harmony.header import (
    BEGIN,
    CHANNEL,
    CONSTRAIN,
    END,
    FUNCTIONS,
    MESSAGE,
    Channel,
)

AROUND = Around(
    tag=CHANNEL,
    before=f"commentary to={FUNCTIONS}{NAME} {CONSTRAIN}json{MESSAGE}",
    after="",
    several=False,
)
_BODY = "@body"  # what the request asks for, in Lark that frames it


def held_to(
    own: GrammarSpec | None,
    tools: Tools | None,
    opened: Channel | None,
    control: Mapping[str, int],
    *,
    begins: bool,
) -> GrammarSpec | None:
    """Return the grammar, if there is one. `own`: what the body asks for; `tools`: those that may
    be called; `opened`: the channel that the prompt ends in; `begins`: the answer begins with
    `<|start|>`. Raises BodyError for parameters that no grammar may have."""
    is_required = tools is not None and tools.choice == "required"
    if own is not None and not is_required and opened == "final":
        return own  # it is text already
    is_strict = tools is not None and any(tool.strict for tool in tools.callable)
    if own is None and not is_required and not is_strict:
        return None
    lark = _lark(own, tools, opened, control, begins)
    return GrammarSpec("lark", lark) if own is None or is_required else replace(own, frame=lark)


def _lark(
    own: GrammarSpec | None,
    tools: Tools | None,
    opened: Channel | None,
    control: Mapping[str, int],
    begins: bool,
) -> str:
    def text(plain: str) -> str:
        return literal(plain, control)

    is_required = tools is not None and tools.choice == "required"
    body = "TEXT" if own is None else _BODY
    ends = [] if tools is None else [f"{text(CHANNEL)} calls"]
    if not is_required:
        ends.append(f"{text(f'{CHANNEL}final{MESSAGE}')} {body}")
    begin = text(BEGIN) if begins else ""
    if opened is not None:
        begin = f"told {text(BEGIN)}"
    start = f"{begin} said* ({' | '.join(ends)})"
    if opened == "final" and not is_required:
        start = f"TEXT | {start}"
    # Commentary is text: beside a format, or a call that is required, there is no other.
    channels = ("analysis",) if own or is_required else ("analysis", "commentary")
    said = [f"{text(f'{CHANNEL}{each}{MESSAGE}')} told {text(BEGIN)}" for each in channels]
    rules = [] if tools is None else call_rules(tools, AROUND, control, only_strict=not is_required)
    return "\n".join(
        [
            f"start: {start}",
            f"said: {' | '.join(said)}",
            text_up_to("told", END, control),
            TEXT,
            *rules,
            "",
        ]
    )
