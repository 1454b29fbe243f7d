"""The messages of a chat and its tools, checked for every door: what is wrong is said by place.

Comes in: what a caller, or the body of a request, gave. Goes out: copies with `role` a plain name
and `content` a text, in which text parts are joined by a newline. A message that calls tools, and
is not the user's, may do without content: then its text is empty, since templates trip over null.
The arguments of its calls become objects; text that is none stays, for that is what a model wrote.
All else in a message (`name`, `tool_call_id`, …) is handed on as it is: what of it means something
is the template's business. Knows no templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from octavo.errors import UsageError, kind_of

# Templates build special tokens from role names ("<|" + role + "|>"),
# so a role may hold no punctuation of theirs.
_ROLE = re.compile(r"[\w .:-]+")


class MessageError(UsageError):
    """A message that cannot be read; `place` is where, as in "messages[0].content"."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place


def read_messages(messages: object) -> list[dict[str, Any]]:
    """Check messages and return them as templates take them. Raises MessageError."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise MessageError("messages", f"expected a list, found {kind_of(messages)}")
    if not messages:
        raise MessageError("messages", "expected at least one")
    return [_read_message(f"messages[{i}]", each) for i, each in enumerate(messages)]


def read_tools(tools: object) -> list[dict[str, Any]] | None:
    """Check the tools that an answer may call, and return them as templates take them: none of them
    is no list. What an object says of its tool is the template's business. Raises MessageError."""
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise MessageError("tools", f"expected a list, found {kind_of(tools)}")
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise MessageError(f"tools[{i}]", f"expected an object, found {kind_of(tool)}")
    return [dict(tool) for tool in tools] or None


def _read_message(where: str, message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        expected = '{"role": …, "content": …}'
        raise MessageError(where, f"expected {expected}, found {kind_of(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        found = repr(role) if isinstance(role, str) else _found(message, "role")
        raise MessageError(f"{where}.role", f"expected a plain name such as 'user', found {found}")
    read = {name: value for name, value in message.items() if name != "tool_calls"}
    given = message.get("tool_calls")
    calls = None if given is None else _read_calls(f"{where}.tool_calls", given)
    if not calls:  # templates look at whether there is a list, not at how long it is
        return {**read, "content": _read_content(where, message, content)}
    if content is None and role != "user":
        return {**read, "content": "", "tool_calls": calls}
    return {**read, "content": _read_content(where, message, content), "tool_calls": calls}


def _read_calls(where: str, calls: object) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise MessageError(where, f"expected a list, found {kind_of(calls)}")
    return [_read_call(f"{where}[{i}]", each) for i, each in enumerate(calls)]


def _read_call(where: str, call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        expected = '{"type": "function", "function": {"name": …, "arguments": …}}'
        raise MessageError(where, f"expected {expected}, found {_shown(call)}")
    where = f"{where}.function"
    if not isinstance(function.get("name"), str):
        raise MessageError(f"{where}.name", f"expected a string, found {_found(function, 'name')}")
    arguments = _read_arguments(f"{where}.arguments", function.get("arguments"))
    return {**call, "function": {**function, "arguments": arguments}}


def _read_arguments(where: str, arguments: object) -> object:
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, Mapping):
        return arguments
    if not isinstance(arguments, str):
        found = kind_of(arguments)
        raise MessageError(where, f"expected an object, or one as a string, found {found}")
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return read if isinstance(read, dict) else arguments


def _shown(call: object) -> str:
    return "one without" if isinstance(call, Mapping) else kind_of(call)


def _read_content(where: str, message: Mapping[Any, Any], content: object) -> str:
    place = f"{where}.content"
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not content:
        found = _found(message, "content")
        raise MessageError(place, f"expected a string or a list of text parts, found {found}")
    return "\n".join(_read_part(f"{place}[{i}]", part) for i, part in enumerate(content))


def _read_part(where: str, part: object) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind != "text":
        what = f"parts of type {kind!r} are not supported" if isinstance(kind, str) else "no part"
        raise MessageError(where, f'{what}: expected {{"type": "text", "text": …}}')
    text = part.get("text")
    if not isinstance(text, str):
        raise MessageError(f"{where}.text", f"expected a string, found {kind_of(text)}")
    return text


def _found(message: Mapping[Any, Any], name: str) -> str:
    value = message.get(name)
    if value is not None:
        return "an empty list" if value == [] else kind_of(value)
    import difflib

    near = difflib.get_close_matches(name, [key for key in message if isinstance(key, str)], n=1)
    return f"nothing; is {near[0]!r} meant?" if near and name not in message else "nothing"
