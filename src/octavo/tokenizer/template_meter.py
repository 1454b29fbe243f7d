"""How much one rendering of a chat template may make, and how long it may take.

Comes in: every value that a template makes, and the size of those that are dear to make before they
are. Goes out: the value, or an error that says which limit was met. Sizes are bytes as Python
counts them. Between two steps lies one operation, whose cost follows the size of what it reads.
Knows no Jinja.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, TypeVar

SECONDS = 5.0  # of work; a real template takes milliseconds, one that looks back in every turn more
LARGEST = 16 << 20  # of one value: a text of four million tokens
DEEPEST = 200  # lists in lists, of one value
_ALL = 128 << 20  # of all values together, kept or not
_STEP = 16  # what a step costs beside the value it makes
_BITS = 64  # of a whole number: few of them have the same hash, which a table would be slow with
_MAPPINGS = (dict, MappingProxyType)  # which a view of a dict leads to
_VIEWS: tuple[Any, ...] = (type({}.items()), type({}.keys()), type({}.values()))
_HOLDERS = (list, tuple, set, *_MAPPINGS, *_VIEWS)
_DATA = (str, int, float, type(None), *_HOLDERS)

T = TypeVar("T")


class Meter:
    """The limits of one rendering, and how much of them is used."""

    def __init__(self) -> None:
        self._soonest = time.monotonic() + SECONDS  # is quick to read
        self._end = time.thread_time() + SECONDS  # other threads may keep the machine busy
        self._left = _ALL

    def step(self, size: int = 0) -> None:
        """Count a step that makes a value of `size`."""
        self._left -= _STEP + size
        if self._left < 0:
            raise OverflowError(f"it makes more than {_ALL >> 20} MiB of values")
        if time.monotonic() > self._soonest and time.thread_time() > self._end:
            raise TimeoutError(f"it takes longer than {SECONDS:g} seconds")

    def made(self, value: T) -> T:
        """Count a value that was made, and hand it through."""
        if isinstance(value, int):
            expect_bits(value.bit_length())
        weigh(value)
        self.step(sys.getsizeof(value, 0))
        return value

    def joined(self, pieces: Iterable[str], between: str = "") -> str:
        """Return `between.join(pieces)`, whose size is checked before it is made."""
        texts, size = [], 0
        for piece in pieces:
            size += len(between) + len(piece)
            expect(size)
            self.step()
            texts.append(piece)
        return self.made(between.join(texts))


def expect(size: int) -> None:
    """Refuse a value that would be too large."""
    if size > LARGEST:
        raise OverflowError(f"it makes a value of more than {LARGEST >> 20} MiB")


def expect_bits(count: int) -> None:
    """Refuse a whole number that would be too large."""
    if count > _BITS:
        raise OverflowError(f"it makes a number of more than {_BITS:,} bits")


def weigh(value: Any, before: int = 0, depth: int = 0) -> int:
    """`before` and the size of `value`, what it holds counted at every place that holds it.

    A list of two lists of two lists … is small, but its text is not, nor is comparing it quick.
    What is no data counts as its text: a macro's has its name, a method's may have its object.
    """
    total = before + sys.getsizeof(value, 0)
    if not isinstance(value, _DATA):
        total += len(repr(value))
    expect(total)
    if isinstance(value, _MAPPINGS):
        total = weigh(value.keys(), total, depth)
        value = value.values()
    if isinstance(value, _HOLDERS):
        if depth > DEEPEST:  # the hash of a deep tuple overflows the stack of C
            raise OverflowError(f"it makes a value nested more than {DEEPEST} deep")
        for item in value:
            total = weigh(item, total, depth + 1)
    return total
