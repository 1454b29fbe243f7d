"""A call as a JSON object, `{"name": …, "arguments": {…}}`, while it is written.

Comes in: one character after the other, from the first brace on. Goes out: the call to `Calls`,
from where it is sure to be one: the name is one of the tools', and its arguments have begun as an
object (or are that as a string, or null, or left out). Until then nothing was said, and it may
still be text. Arguments go out as they are written, but that line breaks in strings get their
escapes. The keys may be in any order, and others among them; Llama's word is "parameters".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Literal

from octavo.protocol.answer import CallArguments, CallBegin, CallEnd, Event
from octavo.protocol.tools.json_scanner import BLANKS, JsonScanner, Place

_ARGUMENTS = ("arguments", "parameters")
_Reading = Literal["key", "name", "object", "string", "null"]
_KINDS: Mapping[str, _Reading] = MappingProxyType({"{": "object", '"': "string", "n": "null"})


class Calls:
    """The calls of one answer: their numbers, and their events until somebody takes them."""

    def __init__(self, names: Collection[str], new_id: Callable[[], str]) -> None:
        self.names = names
        self._new_id = new_id
        self._events: list[Event] = []
        self.count = 0

    def begin(self, name: str) -> None:
        self._events.append(CallBegin(self.count, self._new_id(), name))
        self.count += 1

    def arguments(self, text: str) -> None:
        if text:
            self._events.append(CallArguments(self.count - 1, text))

    def end(self) -> None:
        self._events.append(CallEnd(self.count - 1))

    def break_off(self) -> None:
        """The answer ends inside the arguments."""
        self._events.append(CallEnd(self.count - 1, is_broken=True))

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


class CallObject:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._scanner = JsonScanner()
        self._key = ""
        self._name: str | None = None
        self._reading: _Reading | None = None
        self._text: list[str] = []  # of what is being read, but for an object
        self._arguments: list[str] = []  # that wait for the name
        self._is_given = False  # some arguments are, and they are no null
        self.is_begun = False  # it is a call for sure
        self.is_whole = False  # so are its arguments

    @property
    def is_done(self) -> bool:
        return self._scanner.is_done

    def take(self, c: str) -> bool:
        """False: `c` cannot follow. What is not begun then is no call."""
        scanner = self._scanner
        depth, place = scanner.depth, scanner.place
        if not scanner.take(c):
            return False
        if depth == 1 and self._reading is None and c not in BLANKS:
            if place is Place.VALUE:
                return self._begin_value(c)
            if place in (Place.FIRST_KEY, Place.KEY) and c == '"':
                self._reading = "key"
        if self._reading == "object":
            self._write(escaped(c) if place is Place.STRING else c)
        elif self._reading is not None:
            self._text.append(c)
        ended = scanner.depth == 1 and scanner.place in (Place.COLON, Place.AFTER)
        if self._reading is not None and ended:
            return self._end_reading()
        return self._end() if scanner.is_done else True

    def skip(self, text: str, at: int) -> int:
        """Take the characters from `at` on that are only more of a string, and say how many."""
        length = self._scanner.plain(text, at)
        if length and self._reading == "object":
            self._write(text[at : at + length])
        elif length and self._reading is not None:
            self._text.append(text[at : at + length])
        return length

    def _begin_value(self, c: str) -> bool:
        if self.is_begun or self._key not in ("name", *_ARGUMENTS):
            return True  # not ours
        if self._key == "name":
            self._reading = "name" if c == '"' and self._name is None else None
        elif not self._is_given:
            self._reading = _KINDS.get(c)
        if self._reading == "object":
            self._write(c)
            self._give()
        else:
            self._text.append(c)
        return self._reading is not None

    def _end_reading(self) -> bool:
        reading, self._reading = self._reading, None
        text, self._text = "".join(self._text), []
        if reading == "key":
            self._key = json.loads(text, strict=False)
        elif reading == "name":
            self._name = json.loads(text, strict=False)
            self._begin_if_sure()
            return self._name in self._calls.names
        elif reading == "object":
            self.is_whole = True
        elif reading == "string":
            inner = json.loads(text, strict=False).strip() or "{}"
            if not _is_object(inner):
                return False
            self._write(inner)
            self._give()
            self.is_whole = True
        return True

    def _give(self) -> None:
        self._is_given = True
        self._begin_if_sure()

    def _begin_if_sure(self) -> None:
        if self._is_given and self._name is not None and self._name in self._calls.names:
            self._begin(self._name)

    def _begin(self, name: str) -> None:
        self.is_begun = True
        self._calls.begin(name)
        self._calls.arguments("".join(self._arguments))

    def _write(self, text: str) -> None:
        if self.is_begun:
            self._calls.arguments(text)
        else:
            self._arguments.append(text)

    def _end(self) -> bool:
        if self._name is None:
            return False
        if not self.is_begun:
            self._begin(self._name)
            self._calls.arguments("{}")
        self._calls.end()
        return True


def escaped(c: str) -> str:
    """A character of a JSON string, as JSON wants it."""
    return json.dumps(c)[1:-1] if c < " " else c


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
