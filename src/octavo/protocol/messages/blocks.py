"""The system text and the messages of a Messages body, as chat templates read them.

Comes in: texts, and blocks of text, thinking, calls of tools and their results. Goes out: messages
as `chat_messages` gives them: a call's result is a message of its own, and what follows in the same
role is one message, as the API has it. A last one of the assistant's begins the answer. Marks
(`cache_control`) are kept as the messages up to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, Fields, read_kind, read_object, refuse_unknown

Messages = tuple[dict[str, Any], ...]

MOST_MARKS = 4
OF_MARK = ("type", "ttl", "scope")
SECONDS = MappingProxyType({"5m": 300, "1h": 3600})
ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "user": ("text", "tool_result"),
        "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
        "system": ("text",),
    }
)
OF_BLOCK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "text": ("text", "cache_control", "citations"),
        "thinking": ("thinking", "signature"),  # whoever signed it: nothing here depends on that
        "redacted_thinking": ("data",),
        "tool_use": ("id", "name", "input", "cache_control", "caller", "toolset_name"),
        "tool_result": ("tool_use_id", "content", "is_error", "cache_control", "toolset_name"),
    }
)
# What these may say here, beside null.
NOTHING: Mapping[str, object] = MappingProxyType(
    {"citations": [], "caller": {"type": "direct"}, "toolset_name": None}
)
# A last message that says as much as none.
_NOTHING_BEGUN: tuple[object, ...] = (
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": []},
)
# Claude Code's first line, which changes with every request: no prefix would ever be found.
_BILLING = "x-anthropic-billing-header"
_SCOPE = "cache_control.scope"  # who shares what is kept: here nobody but the caller's own


class Mark(NamedTuple):
    """The prompt up to here is to be kept for so long."""

    messages: Messages
    seconds: int


class Said(NamedTuple):
    messages: Messages
    noted: tuple[str, ...]
    is_begun: bool  # the answer, by the last message


class Marks:
    """Collects the marks of one body."""

    def __init__(self) -> None:
        self.found: tuple[Mark, ...] = ()
        self.noted: tuple[str, ...] = ()

    def take(
        self, where: str, block: Mapping[str, Any], messages: Sequence[dict[str, Any]]
    ) -> None:
        """Read the mark of a block, if it has one. Raises BodyError."""
        place = f"{where}.cache_control" if where else "cache_control"
        mark = read_kind(block, "cache_control", dict, place)
        if mark is None:
            return
        refuse_unknown(place, mark, OF_MARK)
        if read_kind(mark, "scope", str, f"{place}.scope") is not None:
            self.noted = (_SCOPE,)
        ttl = "5m" if mark.get("ttl") is None else mark["ttl"]
        seconds = SECONDS.get(ttl) if isinstance(ttl, str) else None
        if mark.get("type") != "ephemeral" or seconds is None:
            raise BodyError(
                f'{place}: expected {{"type": "ephemeral"}}, perhaps with a ttl of 5m or 1h', place
            )
        if len(self.found) == MOST_MARKS:
            raise BodyError(f"{place}: at most {MOST_MARKS} blocks may be marked", place)
        self.found += (Mark(tuple(messages), seconds),)


def read_conversation(fields: Fields, marks: Marks) -> Said:
    """Raises BodyError."""
    messages: Any = fields.get("messages") or []
    if messages and messages[-1] in _NOTHING_BEGUN:
        messages = messages[:-1]
    if not messages:
        expected = 'expected at least one {"role": …, "content": …} that says something'
        raise BodyError(f"messages: {expected}", "messages")
    reader = _Reader(marks)
    if fields.get("system"):  # an empty one says nothing
        reader.read("system", "system", fields["system"])
    for i, message in enumerate(messages):
        reader.read_message(f"messages[{i}]", message)
    if not reader.messages:  # thinking that nobody here can read
        raise BodyError("messages: expected a text in one of them", "messages")
    is_begun = reader.messages[-1]["role"] == "assistant"
    if is_begun:
        _check_beginning(f"messages[{len(messages) - 1}].content", reader.messages[-1])
    return Said(tuple(reader.messages), reader.noted, is_begun)


def _check_beginning(where: str, message: Mapping[str, Any]) -> None:
    """Whether an answer can go on from this message. Raises BodyError."""
    text = message["content"]
    why = None
    if message.get("tool_calls"):
        why = "calls of tools in the last message: expected their results behind it"
    elif not text:
        why = "the last message is the assistant's: expected a text, which the answer goes on with"
    elif text != text.rstrip():
        why = "the answer goes on with the last message, which may not end with white space"
    if why is not None:
        raise BodyError(f"{where}: {why}", where)


class _Reader:
    def __init__(self, marks: Marks) -> None:
        self.messages: list[dict[str, Any]] = []
        self.noted: tuple[str, ...] = ()
        self._marks = marks

    def read_message(self, where: str, message: object) -> None:
        found = read_object(where, message)
        refuse_unknown(where, found, ("role", "content"))
        role = found.get("role")
        if not isinstance(role, str) or role not in ROLES:
            said = repr(role) if isinstance(role, str) else kind_of(role)
            raise BodyError(
                f"{where}.role: expected one of {', '.join(ROLES)}, found {said}", f"{where}.role"
            )
        self.read(f"{where}.content", role, found.get("content"))

    def read(self, where: str, role: str, content: object) -> None:
        if isinstance(content, str):
            self._say(role, self._without_billing(where, content))
            return
        if not isinstance(content, list) or not content:
            found = "an empty list" if content == [] else kind_of(content)
            raise BodyError(f"{where}: expected a string or blocks, found {found}", where)
        for i, each in enumerate(content):
            place = f"{where}[{i}]"
            block = read_object(place, each)
            self._read_block(place, role, _kind(place, block, role), block)
            self._marks.take(place, block, self.messages)

    def _read_block(self, where: str, role: str, kind: str, block: Mapping[str, Any]) -> None:
        if kind == "text":
            self._say(role, self._without_billing(where, _text(where, block, "text")))
        elif kind == "thinking":
            self._say(role, _text(where, block, "thinking"), "reasoning_content")
        elif kind == "redacted_thinking":  # only who wrote it can read it
            self.noted = (*self.noted, where)
        elif kind == "tool_use":
            self._call(where, block)
        else:
            self._result(where, block)

    def _say(self, role: str, text: str | None, name: str = "content") -> None:
        """More of what one role says: a line of its own."""
        if text is None:
            return
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != role:
            self.messages.append({"role": role, "content": "", name: text})
        else:  # never changed in place: a mark may hold it
            said = [each for each in (last.get(name), text) if each]
            self.messages[-1] = {**last, name: "\n".join(said)}

    def _call(self, where: str, block: Mapping[str, Any]) -> None:
        arguments = block.get("input")
        call = {
            "id": _text(where, block, "id"),
            "type": "function",
            "function": {
                "name": _text(where, block, "name"),
                "arguments": read_object(f"{where}.input", {} if arguments is None else arguments),
            },
        }
        self._say("assistant", "")
        last = self.messages[-1]
        self.messages[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), call]}

    def _result(self, where: str, block: Mapping[str, Any]) -> None:
        """That it is an error is said in its text: templates have no other place."""
        is_error = read_kind(block, "is_error", bool, f"{where}.is_error")
        result = {"role": "tool", "tool_call_id": _text(where, block, "tool_use_id")}
        where, content = f"{where}.content", block.get("content")
        parts: list[str] = []
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        elif not isinstance(content, list | None):
            found = kind_of(content)
            raise BodyError(f"{where}: expected a string or blocks, found {found}", where)
        self.messages.append({**result, "content": "Error: " if is_error else ""})
        for i, each in enumerate(content or ()):
            place = f"{where}[{i}]"
            part = read_object(place, each)
            _kind(place, part, "system")
            parts.append(_text(place, part, "text"))
            text = "\n".join(parts)
            self.messages[-1] = {**result, "content": f"Error: {text}" if is_error else text}
            self._marks.take(place, part, self.messages)

    def _without_billing(self, where: str, text: str) -> str | None:
        """None where nothing else is there."""
        if where not in ("system", "system[0]") or not text.startswith(_BILLING):
            return text
        self.noted = (*self.noted, _BILLING)
        return text.partition("\n")[2].lstrip("\n") or None


def _kind(where: str, block: Mapping[str, Any], role: str) -> str:
    """The type of a block that may stand in this role. Raises BodyError."""
    kind = block.get("type")
    if not isinstance(kind, str) or kind not in ROLES[role]:
        what = f"blocks of type {kind!r} are not supported" if isinstance(kind, str) else "no block"
        expected = ", ".join(ROLES[role])
        raise BodyError(f"{where}: {what} here: expected one of {expected}", f"{where}.type")
    refuse_unknown(where, block, ("type", *OF_BLOCK[kind]))
    for name, nothing in NOTHING.items():
        if block.get(name) not in (None, nothing):
            place = f"{where}.{name}"
            raise BodyError(f"{place} is not supported: leave it out", place)
    return kind


def _text(where: str, block: Mapping[str, Any], name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        place = f"{where}.{name}"
        raise BodyError(f"{place}: expected a string, found {kind_of(value)}", place)
    return value
