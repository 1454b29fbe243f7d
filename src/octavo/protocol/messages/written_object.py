"""The arguments of a call as an object, also where the answer was broken off inside them, or they
are no JSON.

Comes in: what a model wrote. Goes out: what is whole of an object that it begins with, and only
values that any reader of JSON takes.
"""

from __future__ import annotations

import itertools
import json
import math
from types import MappingProxyType
from typing import Any

from octavo.protocol.tools.json_scanner import JsonScanner

_ENDS = MappingProxyType({"{": "}", "[": "]"})
_DEEPEST = 64  # readers of JSON have their own limits: what lies deeper is given as text
_LARGEST = 1 << 63


def object_of(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, strict=False, parse_int=_number)
    except ValueError:
        found = json.loads(_closed(_begun(text)), strict=False, parse_int=_number)
    except RecursionError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {_plain_text(key): _plain(value, 1) for key, value in found.items()}


def _begun(text: str) -> str:
    """Return as much of a text as an object may begin with."""
    return "".join(itertools.takewhile(JsonScanner().take, text)) if text[:1] == "{" else ""


def _closed(text: str) -> str:
    """Return the longest beginning that ends after a whole value, with what closes it there."""
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
