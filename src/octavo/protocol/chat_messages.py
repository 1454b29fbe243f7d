"""The messages of a chat's body, as chat templates read them.

Comes in: OpenAI's messages. Goes out: what `octavo.tokenizer.messages` makes of them, without nulls
and with the fields that mean something here; "developer" is read as "system", the role that open
models were trained on. Any order is allowed: it is the template that may refuse one. An answer is
taken back as a client has it, who may have put its own reading of it beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, read_kind, refuse_unknown
from octavo.tokenizer.messages import MessageError, read_messages

ROLES: Mapping[str, str] = MappingProxyType(
    {
        **{"system": "system", "developer": "system", "user": "user"},
        **{"assistant": "assistant", "tool": "tool"},
    }
)
OF_EVERY = ("role", "content", "name")
OF_ROLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"assistant": ("tool_calls", "reasoning_content"), "tool": ("tool_call_id",)}
)
OF_CALL = ("id", "type", "function", "index")  # `index`: a stream's deltas, put together, have it
OF_FUNCTION = ("name", "arguments")
OF_PART = ("type", "text", "prompt_cache_breakpoint")  # any prefix is found, marked or not
_PARSED, _PARSED_ARGUMENTS = "parsed", "parsed_arguments"  # of OpenAI's client: what a text means
OF_ANSWER = (_PARSED, "annotations", "refusal")  # that is taken back, and never handed on


def read_chat_messages(messages: object) -> tuple[dict[str, Any], ...]:
    """Raises BodyError."""
    if messages is None:
        raise BodyError('messages is missing: give a list of {"role": …, "content": …}', "messages")
    if isinstance(messages, list):
        messages = [_taken_back(each) for each in messages]
    _check_parts(messages)
    try:
        read = read_messages(messages)
    except MessageError as error:
        raise BodyError(str(error), error.place) from None
    return tuple(_own_fields(f"messages[{i}]", each) for i, each in enumerate(read))


def _taken_back(message: object) -> object:
    """An answer without what says nothing more; the refusal of another server's as its text."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    found = {name: value for name, value in message.items() if name != _PARSED}
    if found.get("annotations") == []:
        del found["annotations"]
    content = found.get("content")
    if content is None and isinstance(found.get("refusal"), str):
        found["content"] = found.pop("refusal")
    elif isinstance(content, list):
        found["content"] = [_said(part) for part in content]
    return found


def _said(part: object) -> object:
    if isinstance(part, dict) and part.keys() == {"type", "refusal"} and part["type"] == "refusal":
        return {"type": "text", "text": part["refusal"]}
    return part


def _check_parts(messages: object) -> None:
    """Refuse what parts of contents have beside their text, by the whole path. What is no list of
    messages, of parts, is left to `read_messages`."""
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for k, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                _check_part(f"messages[{i}].content[{k}]", part)


def _check_part(where: str, part: Mapping[str, Any]) -> None:
    kind = part.get("type")
    if kind == "text":
        refuse_unknown(where, part, OF_PART)
    elif isinstance(kind, str):
        place = f"{where}.{kind if kind in part else 'type'}"
        expected = '{"type": "text", "text": …}'
        why = f"parts of type {kind!r} are not supported: expected {expected}"
        raise BodyError(f"{place}: {why}", place)


def _own_fields(where: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a message that mean something here; null is "not given"."""
    given = {name: value for name, value in message.items() if value is not None}
    role = given["role"]
    if role not in ROLES:
        place = f"{where}.role"
        raise BodyError(f"{place}: expected one of {', '.join(ROLES)}", place)
    for name in given:
        if name not in OF_EVERY + OF_ROLE.get(role, ()):
            place = f"{where}.{name}"
            raise BodyError(f"{place} is not supported: leave it out", place)
        if name != "tool_calls":
            read_kind(given, name, str, f"{where}.{name}")
    if role == "tool" and "tool_call_id" not in given:
        place = f"{where}.tool_call_id"
        raise BodyError(f"{place}: expected the id of the call that this is the result of", place)
    if "tool_calls" in given:
        place = f"{where}.tool_calls"
        calls = given["tool_calls"]
        given["tool_calls"] = [_own_call(f"{place}[{i}]", call) for i, call in enumerate(calls)]
    return {**given, "role": ROLES[role]}


def _own_call(where: str, call: Mapping[str, Any]) -> dict[str, Any]:
    refuse_unknown(where, call, OF_CALL)
    function = {
        name: call["function"][name] for name in call["function"] if name != _PARSED_ARGUMENTS
    }
    refuse_unknown(f"{where}.function", function, OF_FUNCTION)
    call_id = call.get("id")
    if not isinstance(call_id, str):
        raise BodyError(f"{where}.id: expected a string, found {kind_of(call_id)}", f"{where}.id")
    if call.get("type") not in (None, "function"):
        raise BodyError(f'{where}.type: expected "function"', f"{where}.type")
    own = {name: function[name] for name in OF_FUNCTION}
    return {"id": call_id, "type": "function", "function": own}
