"""Values that a caller gives: those of numpy are taken as Python's own, and checked by kind.

An error names the value, says what was expected and what was found. None is a value of no kind.
Knows no option.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

from octavo.errors import UsageError


def plain(value: object) -> object:
    """A scalar or an array of numpy, or of a library that does as numpy, in Python's own types."""
    to_list = getattr(value, "tolist", None)
    return value if to_list is None else to_list()


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """A text is a sequence too, and so are bytes, of numbers that nobody means."""
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    return isinstance(value, Sequence) and not is_text


def is_whole(value: object) -> TypeGuard[int]:
    """True and False are whole numbers to Python, and to nobody else."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number: a float, or a whole one that a float can hold."""
    return isinstance(value, float) or (is_whole(value) and value <= sys.float_info.max)


def check_whole(name: str, value: object, low: float, high: float) -> None:
    if not (is_whole(value) and low <= value <= high):
        raise UsageError(f"{name}={value!r}: expected a whole number from {low} to {high}")


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """`above`: `low` itself is none of the values."""
    if not is_number(value) or not low <= value <= high or (above and value == low):
        start = f"above {low:g}" if above else f"from {low:g}"
        end = "" if high == math.inf else f" {'and at most' if above else 'to'} {high:g}"
        raise UsageError(f"{name}={value!r}: expected a number {start}{end}")


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r}: expected True or False")


def check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"{name}={value!r}: expected a string")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if not any(type(choice) is type(value) and choice == value for choice in choices):
        known = ", ".join(str(each) for each in choices if each is not None)
        raise UsageError(f"{name}={value!r}: expected one of {known}")
