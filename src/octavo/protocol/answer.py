"""A model's answer as events: its text, its reasoning, its calls of tools.

Comes in: the text of one answer, in pieces. Goes out: events, which a stream sends one by one, and
which `collect` makes a whole answer of. Joined they are the same however the text was cut, and no
character is lost: what only looks like a call, or like reasoning, is text. Knows no API's bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from octavo.protocol.reasoning import ReasoningFormat
from octavo.protocol.tools.asked import Tools


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    index: int  # of the calls of this answer
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    index: int
    text: str  # more of a JSON object


@dataclass(frozen=True, slots=True)
class CallEnd:
    index: int
    is_broken: bool = False  # the answer ended inside its arguments


Event = Text | Reasoning | CallBegin | CallArguments | CallEnd


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: str  # a JSON object, as the model wrote it: broken off where the answer was
    is_broken: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    content: str | None  # None where there are calls and no text
    reasoning: str | None
    calls: tuple[Call, ...]

    @property
    def is_called(self) -> bool:
        """There are calls that can be made: a stop, or a limit, broke none of them off."""
        return bool(self.calls) and not any(call.is_broken for call in self.calls)


class CallReader(Protocol):
    def push(self, text: str) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class CallFormat(Protocol):
    """How a model writes calls, as `octavo.protocol.tools.formats` has them."""

    @property
    def reads_all(self) -> bool:
        """It reads the whole of an answer, and not only the calls in it."""

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> CallReader: ...


class AnswerReader:
    """One answer. Without tools, or a format, nothing is a call; without a reasoning format, or a
    call format that reads all, nothing is reasoning."""

    def __init__(
        self,
        tool_format: CallFormat | None,
        reasoning: ReasoningFormat | None,
        tools: Tools | None,
        new_id: Callable[[], str],
    ) -> None:
        self._reasoning = None if reasoning is None else reasoning.reader()
        self._is_inline = reasoning is not None and reasoning.inline
        self._calls: CallReader | None = None
        names = frozenset[str]() if tools is None else tools.names
        if tool_format is not None and (names or tool_format.reads_all):
            self._calls = tool_format.reader(names, new_id)
        self._most = None if tools is None or tools.parallel else 1

    def push(self, text: str) -> list[Event]:
        reasoning, answer = self._reasoning.push(text) if self._reasoning else ("", text)
        events = self._reasoned(reasoning) + self._answered(answer)
        return events if len(events) < 2 and self._most is None else self._joined(events)

    def finish(self) -> list[Event]:
        """The answer ends here, also where it was broken off."""
        reasoning, answer = self._reasoning.finish() if self._reasoning else ("", "")
        events = self._reasoned(reasoning) + self._answered(answer)
        if self._calls is not None:
            events += self._calls.finish()
        return self._joined(events)

    def _reasoned(self, text: str) -> list[Event]:
        if not text:
            return []
        return [Text(text) if self._is_inline else Reasoning(text)]

    def _answered(self, text: str) -> list[Event]:
        if not text:
            return []
        return [Text(text)] if self._calls is None else self._calls.push(text)

    def _joined(self, events: Iterable[Event]) -> list[Event]:
        """Without the calls that are more than were allowed."""
        most = self._most
        return joined(
            event
            for event in events
            if isinstance(event, Text | Reasoning) or most is None or event.index < most
        )


def plain_reader() -> AnswerReader:
    """Return the reader of an answer in which all is text."""
    return AnswerReader(None, None, None, str)


def joined(events: Iterable[Event]) -> list[Event]:
    """Return the events, neighbours of a kind as one and none of them empty."""
    found: list[Event] = []
    of_kind: list[Text | Reasoning | CallArguments] = []  # neighbours that are not in `found` yet
    for event in events:
        if isinstance(event, CallBegin | CallEnd):
            found += _as_one(of_kind)
            of_kind = []
            found.append(event)
        elif event.text:
            if of_kind and _kind(of_kind[0]) != _kind(event):
                found += _as_one(of_kind)
                of_kind = []
            of_kind.append(event)
    return found + _as_one(of_kind)


def _as_one(events: Sequence[Text | Reasoning | CallArguments]) -> list[Event]:
    if len(events) < 2:
        return list(events)
    return [replace(events[0], text="".join(event.text for event in events))]


def _kind(event: Text | Reasoning | CallArguments) -> tuple[type, int]:
    return type(event), event.index if isinstance(event, CallArguments) else 0


def collect(events: Iterable[Event]) -> Answer:
    """The whole answer that these events are."""
    text: list[str] = []
    reasoning: list[str] = []
    begun: list[CallBegin] = []
    arguments: dict[int, list[str]] = {}
    whole: set[int] = set()
    for event in events:
        match event:
            case Text():
                text.append(event.text)
            case Reasoning():
                reasoning.append(event.text)
            case CallBegin():
                begun.append(event)
                arguments[event.index] = []
            case CallArguments():
                arguments[event.index].append(event.text)
            case CallEnd():
                if not event.is_broken:
                    whole.add(event.index)
    calls = tuple(
        Call(call.id, call.name, "".join(arguments[call.index]), call.index not in whole)
        for call in begun
    )
    content = "".join(text)
    return Answer(content if content or not calls else None, "".join(reasoning) or None, calls)
