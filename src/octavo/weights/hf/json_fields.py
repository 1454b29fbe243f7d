"""The JSON files of a model directory: read whole, and their fields by kind.

Every error names the file and the field, what was expected and what was found. Knows no field.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from octavo.errors import ModelFormatError, kind_of
from octavo.values import is_number, is_whole
from octavo.weights.mapped_file import MappedFile

_MOST_BYTES = 1 << 28  # above any vocabulary known


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file. Raises ModelFormatError, ModelNotFoundError."""
    with MappedFile(path, kind="a JSON file") as file:
        if len(file.mapping) > _MOST_BYTES:
            raise ModelFormatError(
                f"{path} has {len(file.mapping):,} bytes: expected at most {_MOST_BYTES:,}"
            )
        data = file.mapping[:]
    return parse_object(data, str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`, none of whose fields is there twice."""
    try:
        with _uncollected():
            found = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{where} is not UTF-8 at byte {error.start:,}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ModelFormatError(f"{where} is not JSON: {error.msg} at {place}") from None
    except (ValueError, RecursionError) as error:  # numbers too long, a field twice, too deep
        raise ModelFormatError(f"{where}: {error}") from None
    if not isinstance(found, dict):
        raise ModelFormatError(f"{where}: expected an object, found {kind_of(found)}")
    return found


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector, which would look at half a million merges again and again: what is
    read has no cycles, and this halves the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def shown_json(value: object) -> str:
    """A value in a message, as JSON and not all of a long one."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Fields:
    """An object's fields by kind; notes which were read. null is as good as not there."""

    def __init__(
        self,
        where: str,
        values: Mapping[str, Any],
        *,
        inside: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """`inside` is the way to this object in its file: "rope_scaling.". `defaults` are what
        fields mean that are not there: `assumed` says which of them were read."""
        self.where = where
        self.values = values
        self._inside = inside
        self._defaults = defaults or {}
        self.read: set[str] = set()
        self.assumed: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def default(self, name: str) -> Any:
        """What it means that the field is not there; None if nothing."""
        return self._defaults.get(name)

    def get(self, name: str) -> Any:
        self.read.add(name)
        return self.values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def whole(self, name: str, default: int | None = None, *, least: int | None = None) -> int:
        value = self._value(name, default)
        if not is_whole(value) or (least is not None and value < least):
            raise self.wrong(name, "a whole number" + ("" if least is None else f" from {least}"))
        return value

    def real(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not is_number(value):
            raise self.wrong(name, "a number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._value(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.wrong(name, "a list of strings")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """A list of so many numbers above 0."""
        value = self._value(name, None)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(is_number(each) and 0 < each < math.inf for each in value)
        ):
            raise self.wrong(name, f"{count} numbers above 0")
        return tuple(map(float, value))

    def fields(self, name: str) -> Fields:
        value = self._value(name, None)
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(self.where, value, inside=f"{self._inside}{name}.")

    def name_of(self, name: str) -> str:
        """A field as messages call it."""
        return f"{self.where}: {self._inside}{name}"

    def said(self, name: str) -> str:
        """A field and its value as messages give them."""
        value = self.values.get(name)
        return f"{self.name_of(name)} is {shown_json(self.assumed.get(name, value))}"

    def wrong(self, name: str, expected: str) -> ModelFormatError:
        if self.values.get(name) is None:
            return ModelFormatError(f"{self.name_of(name)} is missing: expected {expected}")
        return ModelFormatError(f"{self.said(name)}: expected {expected}")

    def _value(self, name: str, default: object) -> Any:
        value = self.get(name)
        if value is not None:
            return value
        if name in self._defaults:
            self.assumed[name] = self._defaults[name]
            return self._defaults[name]
        return default
