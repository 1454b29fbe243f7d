"""The arguments of a call as an object, also where the answer was broken off inside them.

Comes in: the beginning of a JSON object. Goes out: what is whole of it, and only values that any
reader of JSON takes.
"""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

_ENDS = MappingProxyType({"{": "}", "[": "]"})
_DEEPEST = 64  # readers of JSON have their own limits: what lies deeper is given as text
_LARGEST = 1 << 63


def object_of(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, strict=False, parse_int=_number)
    except ValueError:
        found = json.loads(_closed(text), strict=False, parse_int=_number)
    except RecursionError:
        return {}
    assert isinstance(found, dict), "a reader of calls lets nothing else through"
    return {_plain_text(key): _plain(value, 1) for key, value in found.items()}


def _closed(text: str) -> str:
    """The longest beginning that ends after a whole value, with the ends of what is open there."""
    best, ends = 0, ""  # up to where, and what closes it
    open_ends: list[str] = []
    in_string = is_escaped = False
    for i, c in enumerate(text):
        if in_string:
            in_string = is_escaped or c != '"'
            is_escaped = c == "\\" and not is_escaped
        elif c == '"':
            in_string = True
        elif c in _ENDS:
            open_ends.append(_ENDS[c])
            best, ends = i + 1, "".join(reversed(open_ends))
        elif c in "}]":
            open_ends.pop()
            best, ends = i + 1, "".join(reversed(open_ends))
        elif c == ",":
            best, ends = i, "".join(reversed(open_ends))
    return (text[:best] + ends) or "{}"


def _number(digits: str) -> int | float:
    if len(digits) > 20:
        return float(digits)
    number = int(digits)
    return number if -_LARGEST <= number < _LARGEST else float(number)


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, float):  # JSON has no infinity
        return value if math.isfinite(value) else None
    if not isinstance(value, dict | list):
        return value
    if depth == _DEEPEST:
        return _plain_text(json.dumps(value))
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    return {_plain_text(key): _plain(each, depth + 1) for key, each in value.items()}


def _plain_text(text: str) -> str:
    """Half surrogates, which an escape can name and UTF-8 cannot, as question marks."""
    return text.encode("utf-8", "replace").decode()
