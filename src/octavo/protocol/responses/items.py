"""The items of an answer: each begins, grows and ends, and tells an event of every step.

Comes in: text, piece by piece. Goes out: the item as JSON, and its events without what the stream
adds (`sequence_number`). Knows no model and no reader.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal, Protocol

from octavo.protocol.responses.custom_input import CustomInput
from octavo.protocol.responses.tools import Target

Status = Literal["in_progress", "completed", "incomplete"]
Data = dict[str, Any]


class Item(Protocol):
    @property
    def id(self) -> str: ...
    def body(self, status: Status) -> Data:
        """It as it is now."""

    def begin(self) -> list[Data]: ...
    def more(self, text: str) -> list[Data]: ...
    def end(self) -> list[Data]: ...


class MessageItem:
    """Text. Log-probabilities that wait in `logprobs` go out with what comes next."""

    def __init__(self) -> None:
        self.logprobs: list[Data] = []
        self.id = _new_id("msg")
        self._text: list[str] = []
        self._told: list[Data] = []  # log-probabilities

    def body(self, status: Status) -> Data:
        content = [] if status == "in_progress" else [self._part()]
        return {
            **{"id": self.id, "type": "message", "status": status, "role": "assistant"},
            "content": content,
        }

    def begin(self) -> list[Data]:
        return [_event("content_part.added", part=self._part(), content_index=0)]

    def more(self, text: str) -> list[Data]:
        self._text.append(text)
        found = self._take()
        return [_event("output_text.delta", content_index=0, delta=text, logprobs=found)]

    def end(self) -> list[Data]:
        self._take()
        part = self._part()
        return [
            _event("output_text.done", content_index=0, text=part["text"], logprobs=self._told),
            _event("content_part.done", content_index=0, part=part),
        ]

    def _take(self) -> list[Data]:
        found, self.logprobs = self.logprobs, []
        self._told += found
        return found

    def _part(self) -> Data:
        text = "".join(self._text)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*self._told]}


class ReasoningItem:
    def __init__(self) -> None:
        self.id = _new_id("rs")
        self._text: list[str] = []

    def body(self, status: Status) -> Data:
        content = [] if status == "in_progress" else [self._part()]
        own = {"id": self.id, "type": "reasoning", "status": status, "summary": []}
        return {**own, "content": content}

    def begin(self) -> list[Data]:
        return [_event("content_part.added", part=self._part(), content_index=0)]

    def more(self, text: str) -> list[Data]:
        self._text.append(text)
        return [_event("reasoning_text.delta", content_index=0, delta=text)]

    def end(self) -> list[Data]:
        part = self._part()
        return [
            _event("reasoning_text.done", content_index=0, text=part["text"]),
            _event("content_part.done", content_index=0, part=part),
        ]

    def _part(self) -> Data:
        return {"type": "reasoning_text", "text": "".join(self._text)}


class FunctionItem:
    def __init__(self, target: Target, call_id: str) -> None:
        self.id = _new_id("fc")
        self._call_id = call_id
        self._target = target
        self._arguments: list[str] = []

    def body(self, status: Status) -> Data:
        return {
            **{"id": self.id, "type": "function_call", "status": status},
            **{"call_id": self._call_id, **_named(self._target)},
            "arguments": "".join(self._arguments),
        }

    def begin(self) -> list[Data]:
        return []

    def more(self, text: str) -> list[Data]:
        self._arguments.append(text)
        return [_event("function_call_arguments.delta", delta=text)]

    def end(self) -> list[Data]:
        arguments, name = "".join(self._arguments), self._target.name
        return [_event("function_call_arguments.done", name=name, arguments=arguments)]


class CustomItem:
    def __init__(self, target: Target, call_id: str) -> None:
        self.id = _new_id("ctc")
        self._call_id = call_id
        self._target = target
        self._reader = CustomInput()
        self._input: list[str] = []

    def body(self, status: Status) -> Data:
        return {
            **{"id": self.id, "type": "custom_tool_call", "status": status},
            **{"call_id": self._call_id, **_named(self._target)},
            "input": "".join(self._input),
        }

    def begin(self) -> list[Data]:
        return []

    def more(self, text: str) -> list[Data]:
        return self._more(self._reader.push(text))

    def end(self) -> list[Data]:
        events = self._more(self._reader.finish())
        return [*events, _event("custom_tool_call_input.done", input="".join(self._input))]

    def _more(self, text: str) -> list[Data]:
        if not text:
            return []
        self._input.append(text)
        return [_event("custom_tool_call_input.delta", delta=text)]


def call_item(target: Target, call_id: str) -> FunctionItem | CustomItem:
    return (CustomItem if target.is_custom else FunctionItem)(target, call_id)


def _named(target: Target) -> Data:
    space = {} if target.namespace is None else {"namespace": target.namespace}
    return {"name": target.name, **space}


def _event(kind: str, **own: Any) -> Data:
    return {"type": f"response.{kind}", **own}


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"
