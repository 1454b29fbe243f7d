"""StopStrings: lets text through up to the first stop string, holding back what may be its
beginning.

Comes in: pieces of text in order, and the names of tokens that are not shown between them. Goes
out: what may be shown. A stop string is looked for in what is shown, and in the same with the
names, of which it may hold whole ones only: nobody sees a part of one. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence


class StopStrings:
    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""  # the names too
        self._places: list[int] = []  # in _held, of the characters that are shown
        self._inside: set[int] = set()  # places in _held where a name is under way
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The part of all text so far that is now sure to be shown. Nothing once a stop was
        found."""
        if not self._stops:
            return text
        return self._take_in(text, range(len(self._held), len(self._held) + len(text)))

    def push_hidden(self, name: str) -> str:
        """Push a name that is not shown itself, and return what is now sure to be."""
        self._inside.update(range(len(self._held) + 1, len(self._held) + len(name)))
        return self._take_in(name, ())

    def finish(self) -> str:
        """Return what was held back for a stop string that never came."""
        return self._let_go(len(self._held))

    def _take_in(self, text: str, places: Iterable[int]) -> str:
        if self.found is not None:
            return ""
        self._held += text
        self._places += places
        views: list[tuple[str, Sequence[int], Container[int]]]
        views = [(self._held, range(len(self._held)), self._inside)]
        if len(self._places) < len(self._held):
            views.append(("".join(self._held[i] for i in self._places), self._places, ()))
        hits, keep_from = [], len(self._held)
        for seen, place, inside in views:
            for stop in self._stops:
                if (at := _find(seen, stop, inside)) >= 0:
                    hits.append((place[at], stop))
                elif overlap := _overlap(seen, stop, inside):
                    keep_from = min(keep_from, place[len(seen) - overlap])
        if not hits:
            return self._let_go(keep_from)
        end, self.found = min(hits)
        shown = self._let_go(end)
        self._held, self._places, self._inside = "", [], set()
        return shown

    def _let_go(self, end: int) -> str:
        """Return what is shown of the first `end` characters, which are held no longer."""
        shown = "".join(self._held[i] for i in self._places if i < end)
        self._held = self._held[end:]
        self._places = [i - end for i in self._places if i >= end]
        self._inside = {i - end for i in self._inside if i > end}
        return shown


def _find(text: str, stop: str, inside: Container[int]) -> int:
    """Find where `stop` is first in `text`, neither end of it `inside` a name; -1 for nowhere."""
    at = text.find(stop)
    while at >= 0 and (at in inside or at + len(stop) in inside):
        at = text.find(stop, at + 1)
    return at


def _overlap(text: str, stop: str, inside: Container[int]) -> int:
    """Length of the longest end of `text` that begins `stop`, and not `inside` a name."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((n for n in sizes if len(text) - n not in inside and text.endswith(stop[:n])), 0)
