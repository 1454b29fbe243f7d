"""The text of an answer, with calls in it: where one may begin, and what becomes of it.

Comes in: text in pieces. Goes out: Text, and the events of calls. After a tag that opens a call a
body takes character by character; one that turns out to be none gives all of them back as text.
Blanks around calls are left out unless more text follows. Knows no format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

from octavo.protocol.answer import Event, Text
from octavo.protocol.partial import beginning_at_end
from octavo.protocol.tools.call_object import Calls


class Verdict(Enum):
    MORE = auto()
    NONE = auto()  # no call: nothing of it was said, all of it is text
    DONE = auto()


class Body(Protocol):
    """What follows an opening tag, of one or more calls."""

    @property
    def unread(self) -> int:
        """Return how many characters at the end of a body that is done are not its own."""

    def take(self, c: str) -> Verdict: ...
    def skip(self, text: str, at: int) -> int:
        """Take those characters from `at` on that are only more of a string; how many they are."""

    def finish(self) -> Verdict:
        """The text ends here: NONE or DONE."""


class TextReader:
    """`tags` open calls anywhere; `first` are those that do so only where no text was before."""

    def __init__(
        self,
        calls: Calls,
        body: Callable[[str], Body],
        tags: Sequence[str],
        first: Sequence[str] = (),
    ) -> None:
        self._calls = calls
        self._make_body = body
        self._tags = tuple(tags)
        self._first = tuple(first)
        self._starts = tuple({tag[0] for tag in tags})
        self._events: list[Event] = []
        self._held = ""  # not told yet
        self._body: Body | None = None
        self._tag = ""  # that opened it
        self._body_at = 0  # how far into `_held` it has read
        self._blanks = ""  # at the end of the text so far
        self._is_first = True  # no text yet
        self._spoke = False

    def only_first(self) -> None:
        """All tags open calls only where no text was before."""
        self._tags, self._first, self._starts = (), self._tags + self._first, ()

    def push(self, text: str) -> list[Event]:
        is_plain = self._body is None and not (self._held or self._is_first)
        if is_plain and not any(start in text for start in self._starts):
            self._say(text)
            return self._take()
        self._held += text
        while self._read():
            pass
        return self._take()

    def finish(self) -> list[Event]:
        while self._held or self._body is not None:
            if self._body is None:
                self._say(self._held)
                self._held = ""
            else:
                self._settle(self._body.finish())
                while self._read():
                    pass
        if not self._calls.count:
            self._events.append(Text(self._blanks))
        return [event for event in self._take() if event != Text("")]

    def _read(self) -> bool:
        """Go on with what is held; False when more is needed."""
        if self._body is not None:
            return self._read_body(self._body)
        at, tag = self._next_tag()
        if tag is None:
            keep = beginning_at_end(self._held, self._open_tags())
            self._say(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        self._say(self._held[:at])
        self._held = self._held[at + len(tag) :]
        self._body, self._tag, self._body_at = self._make_body(tag), tag, 0
        return True

    def _next_tag(self) -> tuple[int, str | None]:
        found = [(self._held.find(tag), tag) for tag in self._tags]
        if self._is_first:
            start = len(self._held) - len(self._held.lstrip())
            found += [(start, tag) for tag in self._first if self._held.startswith(tag, start)]
        return min(((at, tag) for at, tag in found if at >= 0), default=(0, None))

    def _open_tags(self) -> tuple[str, ...]:
        return self._tags + self._first if self._is_first else self._tags

    def _read_body(self, body: Body) -> bool:
        verdict = Verdict.MORE
        while verdict is Verdict.MORE:
            if self._body_at == len(self._held):
                self._events += self._calls.take()
                return False
            self._body_at += body.skip(self._held, self._body_at)
            if self._body_at < len(self._held):
                verdict = body.take(self._held[self._body_at])
                self._body_at += 1
        self._settle(verdict)
        return True

    def _settle(self, verdict: Verdict) -> None:
        body, self._body = self._body, None
        assert body is not None
        self._events += self._calls.take()
        if verdict is Verdict.NONE:
            self._say(self._tag)
        else:
            self._held = self._held[self._body_at - body.unread :]

    def _say(self, text: str) -> None:
        text = self._blanks + text
        said = text.rstrip()
        self._blanks = text[len(said) :]
        if not said:
            return
        self._events.append(Text(said if self._spoke or not self._calls.count else said.lstrip()))
        self._spoke, self._is_first = True, False

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events
