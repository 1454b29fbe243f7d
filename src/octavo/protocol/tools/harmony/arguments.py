"""The arguments of one call, character by character, up to where its message ends.

Comes in: what stands in the message. Goes out: more of the arguments, to `Calls`, which the call
was begun in. Arguments that are no JSON go on as they are written to the end of the message.
"""

from __future__ import annotations

from typing import Literal

from octavo.protocol.tools.call_object import Calls, escaped
from octavo.protocol.tools.json_scanner import BLANKS, JsonScanner, Place


class Arguments:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._place: Literal["before", "inside", "done", "broken"] = "before"
        self._scanner = JsonScanner()
        self._blanks: list[str] = []  # behind broken ones, unless they go on

    @property
    def is_text(self) -> bool:
        """Whether what follows stands in a string, where no tag ends anything."""
        return self._place == "inside" and self._scanner.place is Place.STRING

    @property
    def is_done(self) -> bool:
        return self._place == "done"

    def skip(self, text: str, at: int) -> int:
        """Take those characters from `at` on that are only more of a string; return how many."""
        if not self.is_text:
            return 0
        length = self._scanner.plain(text, at)
        self._calls.arguments(text[at : at + length])
        return length

    def take(self, c: str) -> None:
        if self._place == "before":
            if c in BLANKS:
                return
            self._place = "inside" if c == "{" else "broken"
        if self._place == "inside":
            is_text = self.is_text
            if self._scanner.take(c):
                self._calls.arguments(escaped(c) if is_text else c)
                self._place = "done" if self._scanner.is_done else "inside"
                return
            self._place = "broken"
        if c in BLANKS:
            self._blanks.append(c)
        else:
            self._calls.arguments("".join(self._blanks) + c)
            self._blanks = []

    def end(self, *, is_cut: bool) -> None:
        """The message ends here; `is_cut`: with the answer."""
        if self._place == "before":
            self._calls.arguments("{}")
        if is_cut and self._place in ("inside", "broken"):
            self._calls.break_off()
        else:
            self._calls.end()
