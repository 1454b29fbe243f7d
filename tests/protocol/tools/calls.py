"""Answers of models, written out, and readers of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from octavo.protocol.answer import Answer, AnswerReader, Event, collect, joined
from octavo.protocol.reasoning import ReasoningFormat
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.formats import tool_format_of

TOOLS = Tools((Tool("get_time"), Tool("add", "Adds", {"type": "object", "properties": {}})))


def reader(
    form: str | None, *, tools: Tools | None = TOOLS, reasoning: ReasoningFormat | None = None
) -> AnswerReader:
    count = itertools.count(1)
    chosen = None if form is None else tool_format_of(None, form)
    return AnswerReader(chosen, reasoning, tools, lambda: f"id{next(count)}")


def events(reads: AnswerReader, pieces: Iterable[str]) -> list[Event]:
    found = [event for piece in pieces for event in reads.push(piece)]
    return joined(found + reads.finish())


def answer(form: str, text: str, *, tools: Tools = TOOLS) -> Answer:
    return collect(events(reader(form, tools=tools), [text]))


def told(form: str, text: str) -> tuple[str | None, list[tuple[str, str]]]:
    """The content, and the calls as (name, arguments)."""
    found = answer(form, text)
    return found.content, [(call.name, call.arguments) for call in found.calls]
