"""Values that a caller gives: numbers of numpy are taken as Python's own, None as the default.

Knows no option: the dataclasses that have them `settle`, then check each with its range. None is
then left only where it is one of the values, so that every check lets it pass.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from octavo.errors import UsageError


def plain(value: object) -> object:
    """A scalar or an array of numpy, or of a library that does as numpy, in Python's own types."""
    to_list = getattr(value, "tolist", None)
    return value if to_list is None else to_list()


def settle(options: Any) -> None:
    """Make the fields of a dataclass plain, and those that are None their default, unless None is
    one of their values. For `__post_init__`, also of a frozen one."""
    for field in fields(options):
        value = plain(getattr(options, field.name))
        if value is None and "None" not in str(field.type):
            value = field.default
        object.__setattr__(options, field.name, value)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """A text is a sequence too, and so are bytes, of numbers that nobody means."""
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    return isinstance(value, Sequence) and not is_text


def is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(name: str, value: object, low: int, high: int) -> None:
    if value is not None and not (is_whole(value) and low <= value <= high):
        raise UsageError(f"{name}={value!r}: expected a whole number from {low} to {high}")


def check_number(
    name: str, value: object, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """`above`: `low` itself is none of the values."""
    if value is None:
        return
    if not _is_real(value) or not low <= value <= high or (above and value == low):
        start = f"above {low:g}" if above else f"from {low:g}"
        end = "" if high == math.inf else f" {'and at most' if above else 'to'} {high:g}"
        raise UsageError(f"{name}={value!r}: expected a number {start}{end}")


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name}={value!r}: expected True or False")


def _is_real(value: object) -> TypeGuard[float]:
    """Of whole numbers those that a float holds."""
    return isinstance(value, float) or (is_whole(value) and value <= sys.float_info.max)
