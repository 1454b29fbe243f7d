"""Tools and earlier turns as Harmony's templates take them: reasoning under the name that they
read, and of the calls of one answer each in a message of its own, its result behind it, since they
write one call of a message and no more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.protocol.tools.asked import Tool
from octavo.protocol.tools.harmony.reader import CLOSING, OPENING

_TOLD, _READ = "reasoning_content", "thinking"
_OPENING, _CLOSING = OPENING.strip(), CLOSING.strip()
_Message = Mapping[str, Any]


def as_written(messages: Sequence[_Message], *, inline: bool) -> list[dict[str, Any]]:
    """Return these turns so. `inline`: answers have their reasoning in their text, as it was
    told."""
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if message["role"] != "assistant":
            found.append(dict(message))
            continue
        answer = _answer(_taken_apart(message) if inline else message)
        if len(answer.get("tool_calls", ())) < 2:
            found.append(answer)
            continue
        results = list(itertools.takewhile(lambda m: m["role"] == "tool", messages[at:]))
        at += len(results)
        found += _call_by_call(answer, results)
    return found


def described(tool: Tool) -> dict[str, Any]:
    """Return a tool for the template, which fails where one has no description."""
    found = tool.for_template()
    return {**found, "function": {"description": "", **found["function"]}}


def _answer(message: _Message) -> dict[str, Any]:
    """Return it with its reasoning under the name that templates read. Where it calls there is one
    place for what was said before: text of such an answer is behind the reasoning."""
    found = dict(message)
    if reasoning := found.get(_TOLD):
        found[_READ] = reasoning
    if found.get("tool_calls") and found.get(_READ) and found.get("content"):
        found[_READ] += "\n" + found["content"]
        found["content"] = ""
    return found


def _call_by_call(answer: _Message, results: Sequence[_Message]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    left = [dict(result) for result in results]
    first = dict(answer)
    for call in answer["tool_calls"]:
        found.append({**first, "tool_calls": [call]})
        own = [result for result in left if result.get("tool_call_id") == call.get("id")]
        left = [result for result in left if result not in own]
        found += own
        first = {"role": "assistant", "content": ""}
    return [*found, *left]


def _taken_apart(message: _Message) -> _Message:
    """Take reasoning out of a text that begins with it, as an answer was told. Clients may have cut
    the blanks at its ends."""
    text, thoughts = message.get("content") or "", []
    while _TOLD not in message and text.lstrip().startswith(_OPENING) and _CLOSING in text:
        thought, _, text = text.partition(_CLOSING)
        thoughts.append(thought.lstrip().removeprefix(_OPENING).strip("\n"))
        text = text.lstrip("\n")
    return {**message, "content": text, _TOLD: "\n".join(thoughts)} if thoughts else message
