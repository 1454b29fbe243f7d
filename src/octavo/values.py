"""Values that a caller gives: numbers of numpy are taken as Python's own, None as the default.

Knows no option and no range: the dataclasses that have them check, once this has been done.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any


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
