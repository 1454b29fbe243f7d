"""How large a value will be that is much larger than what it is made of, before it is made.

Comes in: the arguments of an operator, of a method of text or of a filter, as a template gives
them. Goes out: about how many bytes it would make, or what takes as long. What is in no table here
makes no more than a few times what it reads. A wrong argument raises TypeError, as the real thing
does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from octavo.tokenizer.template_meter import weigh

Size = Callable[..., int]

# widths and precisions: digits before what may follow them in a field
_PRINTF_WIDTH = re.compile("[0-9]+(?=[.hlLdiouxXeEfFgGcrsa%])")


def repeated(value: object, times: object) -> int:
    """The size of `value * times`, where that makes many of one."""
    if isinstance(value, str | list | tuple) and isinstance(times, int):
        return len(value) * times
    return 0


def filled(form: str, values: object) -> int:
    """Return a bound on the size of `form % values`: every field may hold them all."""
    given = values if isinstance(values, tuple) else (values,)
    stars = sum(abs(v) for v in given if isinstance(v, int)) if "*" in form else 0
    numbers = sum(map(int, _PRINTF_WIDTH.findall(form)))
    return stars + numbers + form.count("%") * weigh(values)


def widths(format_spec: str) -> int:
    """Return the most that the width and the precision of a field of `str.format` make."""
    return sum(map(int, re.findall(r"\d+", format_spec)))


def _width(text: object, width: int, *_: object) -> int:
    return width


def _expandtabs(text: str, tabsize: int = 8) -> int:
    return text.count("\t") * tabsize


def _replace(s: object, old: object, new: object, count: object = None) -> int:
    return str(s).count(str(old)) * len(str(new))


def _scan(text: object, chars: str | None = None, *_: object, **__: object) -> int:
    """Price comparing each character with each of another text; 16 cost as much as a byte."""
    return len(str(text)) * len(chars or "") // 16


def _split(text: str, *args: Any, **kwargs: Any) -> int:
    """Price a split: each part of Markup is made anew, in Python; those of plain text are not."""
    return weigh(str.split(text, *args, **kwargs)) if isinstance(text, Markup) else 0


def _rsplit(text: str, sep: str | None = None, maxsplit: int = -1) -> int:
    return max(_scan(text, sep), _split(text, sep, maxsplit))


def _splitlines(text: str, *_: object, **__: object) -> int:
    return weigh(str.splitlines(text)) if isinstance(text, Markup) else 0


def _indent(s: object, width: int | str = 4, *_: object, **__: object) -> int:
    return len(str(s).splitlines()) * (len(width) if isinstance(width, str) else width)


def _round(value: object, precision: int = 0, *_: object, **__: object) -> int:
    """Price a rounding, which raises ten to the precision: at most 256, up or down."""
    return abs(precision) << 16


def _sum(iterable: object, attribute: object = None, start: object = 0) -> int:
    if not isinstance(start, int | float):
        raise TypeError("sum: start must be a number")
    return 0


def _apart(value: object, *_: object, **__: object) -> int:
    """The characters of a text, each as a text of its own."""
    return 80 * len(value) if isinstance(value, str) else 0


METHODS: Mapping[str, Size] = MappingProxyType(
    {
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _width),
        **dict.fromkeys(("rfind", "rindex", "rpartition", "strip", "lstrip", "rstrip"), _scan),
        "expandtabs": _expandtabs,
        "join": lambda text, pieces: len(text) * len(pieces),
        "replace": _replace,
        "rsplit": _rsplit,
        "split": _split,
        "splitlines": _splitlines,
    }
)
FILTERS: Mapping[str, Size] = MappingProxyType(
    {
        **dict.fromkeys(("list", "sort", "unique"), _apart),
        "center": lambda value, width=80: width,
        "format": lambda value, *args, **kwargs: filled(str(value), kwargs or args),
        "indent": _indent,
        "replace": _replace,
        "round": _round,
        "sum": _sum,
        "trim": lambda value, chars=None: _scan(value, chars),
    }
)
