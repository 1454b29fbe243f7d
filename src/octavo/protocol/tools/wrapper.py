"""Tools for chat templates that know none: everything about them becomes text of messages.

The system message says which functions there are and how to call them; calls of earlier turns
become what the model had written; results become the user's words, since such templates know no
other role.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octavo.protocol.tools.asked import Tools

_RESULT = ("<tool_response>", "</tool_response>")


def system_text(tools: Tools, example: str) -> str:
    """Tell a model of the tools: in the same text for the same ones, which the cache finds."""
    lines = [json.dumps(tool.for_template(), ensure_ascii=False) for tool in tools.told]
    return "\n".join(
        [
            "You can call functions. These are all of them, one a line:",
            *lines,
            "To call one, answer with its name and arguments in exactly this form; to call several,"
            " with one such after the other:",
            example,
            f"What it returns is then given to you between {' and '.join(_RESULT)}.",
        ]
    )


def wrapped(
    messages: Sequence[Mapping[str, Any]],
    system: str | None,
    written: Callable[[str, object], str],
) -> list[dict[str, Any]]:
    """Messages of system, user and assistant alone, each with a text."""
    found: list[dict[str, Any]] = []
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result and after_result:
            found[-1]["content"] += "\n" + _result(message)
        elif is_result:
            found.append({"role": "user", "content": _result(message)})
        else:
            found.append(_without_calls(message, written))
        after_result = is_result
    return found if system is None else _with_system(found, system)


def _result(message: Mapping[str, Any]) -> str:
    return f"{_RESULT[0]}\n{message['content']}\n{_RESULT[1]}"


def _without_calls(
    message: Mapping[str, Any], written: Callable[[str, object], str]
) -> dict[str, Any]:
    if not message.get("tool_calls"):
        return dict(message)
    functions = [call["function"] for call in message["tool_calls"]]
    calls = [written(each["name"], each["arguments"]) for each in functions]
    text = [message["content"]] if message.get("content") else []
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": "\n".join([*text, *calls])}


def _with_system(messages: list[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    if messages and messages[0]["role"] == "system":
        first = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{system}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]
