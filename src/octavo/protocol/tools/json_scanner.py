"""One JSON value, character by character: whether each may follow what was there.

Knows where it is (depth, key or value, inside a string or not) and keeps no text. As strict as JSON
but for control characters in strings, such as a line break, which models write bare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

BLANKS = " \t\n\r"
_DIGITS = "0123456789"
_HEX = "0123456789abcdefABCDEF"
_NOT_PLAIN = re.compile(r'["\\\x00-\x1f]')  # in a string: what ends it, or has an escape of its own
_LITERALS = MappingProxyType({"t": "rue", "f": "alse", "n": "ull"})


class Place(Enum):
    """What comes next."""

    VALUE = auto()
    FIRST_ITEM = auto()  # a value, or the end of the list
    FIRST_KEY = auto()  # a key, or the end of the object
    KEY = auto()
    COLON = auto()
    AFTER = auto()  # a comma, or the end of the list or object
    STRING = auto()
    ESCAPE = auto()
    NUMBER = auto()
    LITERAL = auto()
    DONE = auto()


# A number by what it has come to: which characters go on to what.
_NUMBER: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        "sign": (("0", "zero"), ("123456789", "whole")),
        "zero": ((".", "point"), ("eE", "exponent")),
        "whole": ((_DIGITS, "whole"), (".", "point"), ("eE", "exponent")),
        "point": ((_DIGITS, "part"),),
        "part": ((_DIGITS, "part"), ("eE", "exponent")),
        "exponent": (("+-", "power sign"), (_DIGITS, "power")),
        "power sign": ((_DIGITS, "power"),),
        "power": ((_DIGITS, "power"),),
    }
)
_WHOLE_NUMBERS = ("zero", "whole", "part", "power")


class JsonScanner:
    def __init__(self) -> None:
        self.place = Place.VALUE
        self._open: list[str] = []  # the ends of what is open: "]" or "}"
        self._is_key = False  # the string is
        self._number = ""
        self._due = ""  # of a literal
        self._hex_due = 0  # of \u

    @property
    def depth(self) -> int:
        return len(self._open)

    @property
    def is_done(self) -> bool:
        """The value ended. A number alone never does: only what follows ends it."""
        return self.place is Place.DONE

    def take(self, c: str) -> bool:
        """False: `c` cannot follow, and nothing has changed."""
        if self.place is Place.STRING:
            return self._in_string(c)
        if self.place is Place.ESCAPE:
            return self._in_escape(c)
        if self.place is Place.LITERAL:
            return self._in_literal(c)
        if self.place is Place.NUMBER:
            goes_on = next((to for of, to in _NUMBER[self._number] if c in of), None)
            if goes_on is not None:
                self._number = goes_on
                return True
            return self._number in _WHOLE_NUMBERS and (c in BLANKS or c in ",]}") and self._after(c)
        if c in BLANKS:
            return self.place is not Place.DONE
        return self._between(c)

    def plain(self, text: str, at: int) -> int:
        """Return how many characters from `at` on are only more of the string that is open."""
        if self.place is not Place.STRING:
            return 0
        other = _NOT_PLAIN.search(text, at)
        return (len(text) if other is None else other.start()) - at

    def _between(self, c: str) -> bool:
        match self.place:
            case Place.VALUE:
                return self._begin(c)
            case Place.FIRST_ITEM:
                return self._close(c) if c == "]" else self._begin(c)
            case Place.FIRST_KEY if c == "}":
                return self._close(c)
            case Place.FIRST_KEY | Place.KEY:
                return c == '"' and self._begin_string(is_key=True)
            case Place.COLON if c == ":":
                return self._go(Place.VALUE)
            case Place.AFTER:
                return self._after(c)
        return False

    def _begin(self, c: str) -> bool:
        if c == "{" or c == "[":
            self._open.append("}" if c == "{" else "]")
            return self._go(Place.FIRST_KEY if c == "{" else Place.FIRST_ITEM)
        if c == '"':
            return self._begin_string(is_key=False)
        if c in _LITERALS:
            self._due = _LITERALS[c]
            return self._go(Place.LITERAL)
        if c == "-" or c in _DIGITS:
            self._number = "sign" if c == "-" else "zero" if c == "0" else "whole"
            return self._go(Place.NUMBER)
        return False

    def _begin_string(self, *, is_key: bool) -> bool:
        self._is_key = is_key
        return self._go(Place.STRING)

    def _in_string(self, c: str) -> bool:
        if c == '"':
            return self._go(Place.COLON) if self._is_key else self._end_value()
        return self._go(Place.ESCAPE) if c == "\\" else True

    def _in_escape(self, c: str) -> bool:
        if self._hex_due:
            if c not in _HEX:
                return False
            self._hex_due -= 1
            return self._go(Place.ESCAPE if self._hex_due else Place.STRING)
        if c == "u":
            self._hex_due = 4
            return True
        return c in '"\\/bfnrt' and self._go(Place.STRING)

    def _in_literal(self, c: str) -> bool:
        if c != self._due[0]:
            return False
        self._due = self._due[1:]
        return True if self._due else self._end_value()

    def _after(self, c: str) -> bool:
        """What follows a value in a list or an object."""
        if not self._open:
            return False
        if c in BLANKS:
            return self._go(Place.AFTER)
        if c == ",":
            return self._go(Place.KEY if self._open[-1] == "}" else Place.VALUE)
        return self._close(c)

    def _close(self, c: str) -> bool:
        if c != self._open[-1]:
            return False
        self._open.pop()
        return self._end_value()

    def _end_value(self) -> bool:
        return self._go(Place.AFTER if self._open else Place.DONE)

    def _go(self, place: Place) -> bool:
        self.place = place
        return True
