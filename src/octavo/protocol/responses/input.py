"""The items of a Responses body as messages, as chat templates read them.

Comes in: `input`, a text or items. Goes out: messages. What a model says in one turn (reasoning,
text, calls) is several items, and one message. Items of tools that only a provider has, and
reasoning that nobody here can read, are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, read_kind, read_object, refuse_unknown
from octavo.protocol.responses.custom_input import ARGUMENT
from octavo.protocol.responses.tools import told_name
from octavo.protocol.tools.asked import is_hosted
from octavo.tokenizer.messages import read_messages

ROLES: Mapping[str, str] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)
OF_EVERY = ("type", "id", "status")
TEXTS = ("input_text", "output_text", "text")
# `parsed…` are OpenAI's client's: what the text beside it means.
OF_PART = ("type", "text", "annotations", "logprobs", "prompt_cache_breakpoint", "parsed")
_OF_CALL = ("call_id", "name", "namespace", "caller", "async", "parsed_arguments")
_OF_OUTPUT = ("call_id", "output", "name", "caller")

Message = dict[str, Any]


@dataclass(slots=True)
class Input:
    messages: list[Message] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def say(self, **more: Any) -> None:
        """The assistant says more: in its last message, if that has none of this yet."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or not _may_follow(last, more):
            last = {"role": "assistant", "content": ""}
            self.messages.append(last)
        last.update(more)

    def call(self, id: str, name: str, arguments: object) -> None:
        function = {"name": name, "arguments": arguments}
        call = {"id": id, "type": "function", "function": function}
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and "tool_calls" in last:
            last["tool_calls"].append(call)
        else:
            self.say(tool_calls=[call])


def read_input(given: object, place: str = "input") -> Input:
    """Raises BodyError."""
    found = Input()
    if isinstance(given, str):
        found.messages.append({"role": "user", "content": given})
    elif isinstance(given, list):
        for i, item in enumerate(given):
            _read_item(f"{place}[{i}]", item, found)
    else:
        what = "nothing" if given is None else kind_of(given)
        raise BodyError(f"{place}: expected a text or a list of items, found {what}", place)
    found.messages = read_messages(found.messages) if found.messages else []
    return found


def with_instructions(
    instructions: str | None, messages: Sequence[Mapping[str, Any]]
) -> tuple[Message, ...]:
    """The conversation as it is rendered: whatever stands before it is one system message, since
    few templates take several."""
    first = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    texts = [message["content"] for message in messages[:first]]
    texts = [*([] if instructions is None else [instructions]), *texts]
    system = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return (*system, *map(dict, messages[first:]))


def _may_follow(last: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
    if "reasoning_content" in more:
        return False
    if "content" in more:
        return not last["content"] and "tool_calls" not in last
    return True


def _read_item(where: str, item: object, found: Input) -> None:
    given = read_object(where, item)
    kind = given.get("type")
    if kind is None and "role" in given:
        kind = "message"
    if isinstance(kind, str) and kind in READERS:
        read, known = READERS[kind]
        refuse_unknown(where, given, (*OF_EVERY, *known))
        read(where, given, found)
    elif isinstance(kind, str) and is_hosted(kind):
        found.noted.append(where)
    else:
        what = f"items of type {kind!r} are not supported" if isinstance(kind, str) else "no item"
        raise BodyError(f"{where}: {what}: expected {', '.join(READERS)}", f"{where}.type")


def _read_message(where: str, given: Mapping[str, Any], found: Input) -> None:
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BodyError(f"{where}.role: expected one of {', '.join(ROLES)}", f"{where}.role")
    text = _read_texts(f"{where}.content", given.get("content"))
    if role == "assistant":
        found.say(content=text)
    else:
        found.messages.append({"role": ROLES[role], "content": text})


def _read_call(where: str, given: Mapping[str, Any], found: Input) -> None:
    arguments = _text(where, given, "arguments")
    found.call(_text(where, given, "call_id"), _name(where, given), arguments)


def _read_custom_call(where: str, given: Mapping[str, Any], found: Input) -> None:
    arguments = {ARGUMENT: _text(where, given, "input")}
    found.call(_text(where, given, "call_id"), _name(where, given), arguments)


def _read_output(where: str, given: Mapping[str, Any], found: Input) -> None:
    text = _read_texts(f"{where}.output", given.get("output"))
    id = _text(where, given, "call_id")
    found.messages.append({"role": "tool", "tool_call_id": id, "content": text})


def _read_reasoning(where: str, given: Mapping[str, Any], found: Input) -> None:
    parts = read_kind(given, "content", list, f"{where}.content") or []
    texts = []
    for i, part in enumerate(parts):
        place = f"{where}.content[{i}]"
        if read_object(place, part).get("type") not in ("reasoning_text", "text"):
            raise BodyError(f"{place}.type: expected reasoning_text", f"{place}.type")
        refuse_unknown(place, part, ("type", "text"))
        texts.append(_text(place, part, "text"))
    if texts:
        found.say(reasoning_content="\n".join(texts))
    else:
        found.noted.append(where)  # a summary, or what is encrypted


_Reader = Callable[[str, Mapping[str, Any], Input], None]
READERS: Mapping[str, tuple[_Reader, tuple[str, ...]]] = MappingProxyType(
    {
        "message": (_read_message, ("role", "content", "phase", "end_turn")),
        "function_call": (_read_call, (*_OF_CALL, "arguments")),
        "custom_tool_call": (_read_custom_call, (*_OF_CALL, "input")),
        "function_call_output": (_read_output, _OF_OUTPUT),
        "custom_tool_call_output": (_read_output, _OF_OUTPUT),
        "reasoning": (_read_reasoning, ("content", "summary", "encrypted_content")),
    }
)


def _read_texts(where: str, content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        expected = "a string or a list of text parts"
        raise BodyError(f"{where}: expected {expected}, found {kind_of(content)}", where)
    return "\n".join(_read_part(f"{where}[{i}]", part) for i, part in enumerate(content))


def _read_part(where: str, part: object) -> str:
    given = read_object(where, part)
    kind = given.get("type")
    if kind == "refusal":
        refuse_unknown(where, given, ("type", "refusal"))
        return _text(where, given, "refusal")
    if kind not in TEXTS:
        what = f"parts of type {kind!r} are not supported" if isinstance(kind, str) else "no part"
        raise BodyError(f"{where}: {what}: expected {', '.join(TEXTS)}", f"{where}.type")
    refuse_unknown(where, given, OF_PART)
    return _text(where, given, "text")


def _name(where: str, given: Mapping[str, Any]) -> str:
    namespace = read_kind(given, "namespace", str, f"{where}.namespace")
    return told_name(_text(where, given, "name"), namespace)


def _text(where: str, given: Mapping[str, Any], name: str) -> str:
    found = read_kind(given, name, str, f"{where}.{name}")
    if found is None:
        raise BodyError(f"{where}.{name}: expected a string, found nothing", f"{where}.{name}")
    return found
