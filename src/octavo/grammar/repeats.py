"""Repeats: how long a text is that a regular expression asks for, once its repetitions are written
out. Reads the syntax of regular expressions and of Lark, and compiles nothing.

Twenty characters can ask for a million. To compile them takes half a minute, and each step of an
answer to them half a second, in which all wait that are answered beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_HUGE = 1 << 40  # longer is not told apart
_COUNT = r"(?P<blanks>\s*)\{\s*(?P<count>\d+)\s*(?:,\s*\d*\s*)?\}"
_AROUND = r"(?P<close>\)) | (?P<either>\|) | (?P<maybe>[*?])"
_REGEX = re.compile(
    rf"""
    {_COUNT} | (?P<flags>[+^$] | \(\?[a-zA-Z-]*\))
    | (?P<open>\((?:\?(?:P?<\w+>|[a-zA-Z-]*:))?) | {_AROUND}
    | (?P<one>\\[pPxuU]\{{[^}}]*\}} | \\. | \[\^?\]?(?:\\.|[^\]\\])*\] | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_LARK = re.compile(
    rf"""
    (?P<comment>(?://|\#)[^\n]*)
    | (?P<defines>^[ \t]*[?!]*(?P<name>\w+)(?:\[[^\]\n]*\])?(?:\.-?\d+)?[ \t]*:)
    | "(?P<text>(?:\\.|[^"\\])*)" | /(?P<regex>(?:\\.|[^/\\])+)/
    | {_COUNT} | (?P<open>\() | {_AROUND} | (?P<refers>\w+) | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)


class _Length:
    """Counts how long what was read so far is, group by group."""

    def __init__(self) -> None:
        self._groups: list[tuple[int, int]] = []  # of those around: best alternative, this one
        self._best = self._sum = self._last = 0

    def add(self, length: int) -> None:
        self._last = min(length, _HUGE)
        self._sum += self._last

    def read(self, found: re.Match[str]) -> None:
        """Take what regular expressions and Lark share."""
        if found["count"]:
            if found["blanks"]:  # what is repeated is one of them, or what is before them
                self._last = max(self._last, 1)
            self._repeat(int(found["count"][:12]))
        elif found["maybe"]:
            self._repeat(0)
        elif found["either"]:
            self._best, self._sum, self._last = max(self._best, self._sum), 0, 0
        elif found["open"]:
            self._groups.append((self._best, self._sum))
            self._best = self._sum = self._last = 0
        elif found["close"] and self._groups:
            inner = self.total
            self._best, self._sum = self._groups.pop()
            self.add(inner)

    def _repeat(self, count: int) -> None:
        self._sum = max(self._sum - self._last, 0)
        self.add(self._last * count)

    @property
    def total(self) -> int:
        return max(self._best, self._sum)


def longest_of_regex(regex: str) -> int:
    """Characters that a text has at least; of alternatives, of the longest."""
    length = _Length()
    for found in _REGEX.finditer(regex):
        if found["one"]:
            length.add(1)
        else:
            length.read(found)
    return length.total


def longest_of_lark(lark: str) -> int:
    """The same of the longest terminal or regular expression. Rules are not written out: what they
    repeat costs little."""
    longest = 0
    bodies: dict[str, list[re.Match[str]]] = {}  # of terminals
    body: list[re.Match[str]] | None = None
    for found in _LARK.finditer(lark):
        if found["defines"]:
            name = found["name"]
            body = bodies.setdefault(name, []) if name.isupper() else None
        elif body is not None:
            body.append(found)
        else:
            longest = max(longest, _literal(found) or 0)
    return max(longest, _longest_terminal(bodies))


def _longest_terminal(bodies: Mapping[str, Sequence[re.Match[str]]]) -> int:
    """Terminals stand in each other; one that stands in itself is refused elsewhere."""
    known: dict[str, int] = {}
    begun = set[str]()
    todo = [*bodies]
    while todo:
        name = todo[-1]
        if name in begun:  # what stands in it is known
            known.setdefault(name, _of_body(bodies[name], known))
            todo.pop()
            continue
        begun.add(name)
        inner = {each["refers"] for each in bodies[name]} & bodies.keys()
        todo += inner - begun
    return max(known.values(), default=0)


def _of_body(body: Sequence[re.Match[str]], known: Mapping[str, int]) -> int:
    length = _Length()
    for found in body:
        if (literal := _literal(found)) is not None:
            length.add(literal)
        elif found["refers"]:
            length.add(known.get(found["refers"], 1))
        else:
            length.read(found)
    return length.total


def _literal(found: re.Match[str]) -> int | None:
    """A text may be one of the JSON schema that Lark takes too, with a pattern in it."""
    text: str | None = found["text"] if found["regex"] is None else found["regex"]
    return None if text is None else longest_of_regex(text)
