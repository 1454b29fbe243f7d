"""A regular expression of a text as a Lark expression of the same text inside a JSON string.

Comes in: a pattern. Goes out: an expression for a rule, in which every character stands as JSON
writes it: a quote, a backslash and what is below a blank are escaped, in the one way that JSON
writers choose. A lexer cannot go back: so each character is a lexeme of its own, but in a repeat at
the pattern's end, which takes all it can in any case. Looking around, references back and anchors
are refused. Compiles nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from octavo.errors import GrammarError

_ESCAPED = ['"', "\\", *map(chr, range(0x20))]
_PLAIN = r'[^"\\\x00-\x1f]'
_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\d",
    constants.CATEGORY_NOT_DIGIT: r"\D",
    constants.CATEGORY_SPACE: r"\s",
    constants.CATEGORY_NOT_SPACE: r"\S",
    constants.CATEGORY_WORD: r"\w",
    constants.CATEGORY_NOT_WORD: r"\W",
}
_FLAGS = ("", "s")
_MOST = 10_000  # repeats that are counted; more is any number


def in_json(pattern: str, flags: str = "") -> str:
    """Raises GrammarError. `flags`: "s" or none."""
    if flags not in _FLAGS:
        raise GrammarError(f"/{pattern}/{flags}: flags {flags!r} are not supported")
    try:
        tree = parser.parse(pattern, re.S if flags else 0)
    except (re.error, RecursionError, OverflowError) as error:
        raise GrammarError(f"/{pattern}/: {error}") from None
    if tree.state.flags & ~(re.S | re.U):
        raise GrammarError(f"/{pattern}/: flags but s are not supported")
    return _Writer(pattern, dotall=bool(tree.state.flags & re.S)).sequence(tree, at_end=True)


def escaped(text: str) -> str:
    """A literal of a text as it stands in a JSON string."""
    return json.dumps(json.dumps(text, ensure_ascii=False)[1:-1], ensure_ascii=False)


class _Writer:
    def __init__(self, pattern: str, *, dotall: bool) -> None:
        self._pattern = pattern
        self._dotall = dotall

    def sequence(self, nodes: Sequence[tuple[Any, Any]], *, at_end: bool) -> str:
        last = len(nodes) - 1
        parts = [
            self._node(kind, value, at_end=at_end and i == last)
            for i, (kind, value) in enumerate(nodes)
        ]
        return "(" + (" ".join(parts) or '""') + ")"

    def _node(self, kind: Any, value: Any, *, at_end: bool) -> str:
        if kind is constants.LITERAL:
            return escaped(chr(value))
        items = self._class_of(kind, value)
        if items is not None:
            return _class(items)
        if kind is constants.BRANCH:
            branches = (self.sequence(each, at_end=at_end) for each in value[1])
            return "(" + " | ".join(branches) + ")"
        if kind is constants.SUBPATTERN and not value[1] and not value[2]:
            return self.sequence(value[3], at_end=at_end)
        if kind in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            return self._repeat(*value, at_end=at_end and kind is constants.MAX_REPEAT)
        raise GrammarError(f"/{self._pattern}/: {str(kind).lower()} is not supported")

    def _repeat(self, least: int, most: Any, inner: Any, *, at_end: bool) -> str:
        count = _count(least, most)
        ((kind, value), *more) = inner
        items = None if more else self._class_of(kind, value)
        if items is not None and at_end and count in ("*", "+"):
            return _class(items, times="+") + count
        return self.sequence(inner, at_end=False) + count

    def _class_of(self, kind: Any, value: Any) -> Sequence[tuple[Any, Any]] | None:
        if kind is constants.NOT_LITERAL:
            return [(constants.NEGATE, None), (constants.LITERAL, value)]
        if kind is constants.ANY:
            nothing = [] if self._dotall else [(constants.LITERAL, ord("\n"))]
            return [(constants.NEGATE, None), *nothing]
        return list(value) if kind is constants.IN else None


def _count(least: int, most: Any) -> str:
    if most is constants.MAXREPEAT or most > _MOST:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _class(items: Sequence[tuple[Any, Any]], times: str = "") -> str:
    """A character of a class, plain or escaped; plain ones so many times."""
    negated = bool(items) and items[0][0] is constants.NEGATE
    inner = items[1:] if negated else items
    special = [re.escape(json.dumps(c)[1:-1]) for c in _ESCAPED if _has(inner, c) != negated]
    found = [f"/{'|'.join(special)}/"] if special else []
    is_plain = negated or any(
        kind is not constants.LITERAL or chr(value) not in _ESCAPED for kind, value in inner
    )
    if is_plain:
        named = "".join(_item(kind, value) for kind, value in inner)
        own = f"[[{'^' if negated else ''}{named}]&&{_PLAIN}]" if inner else _PLAIN
        found.append(f"/{own}{times}/")
    return "(" + " | ".join(found) + ")"


def _has(items: Sequence[tuple[Any, Any]], c: str) -> bool:
    for kind, value in items:
        if kind is constants.LITERAL and value == ord(c):
            return True
        if kind is constants.RANGE and value[0] <= ord(c) <= value[1]:
            return True
        if kind is constants.CATEGORY and re.fullmatch(_CATEGORIES[value], c, re.ASCII):
            return True
    return False


def _item(kind: Any, value: Any) -> str:
    if kind is constants.CATEGORY:
        return _CATEGORIES[value]
    first, last = value if kind is constants.RANGE else (value, value)
    return f"\\x{{{first:x}}}-\\x{{{last:x}}}"
