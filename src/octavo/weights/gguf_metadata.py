"""GGUF metadata by key and kind: every error names the key, what was expected and what was found.

Notes what was read, and the first thing that is not supported. Knows no key.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from octavo.errors import ModelFormatError
from octavo.model.config import all_but_every
from octavo.values import is_number, is_whole
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.gguf_keys import one_value, shown


class Metadata:
    def __init__(self, values: Mapping[str, MetadataValue]) -> None:
        self._values = values
        self.read: set[str] = set()
        self.refused = ""

    def has(self, key: str) -> bool:
        return key in self._values

    def refuse(self, why: str) -> None:
        self.refused = self.refused or why

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value):
            self.refuse(f"metadata {key!r} differs from layer to layer: one value is supported")
            value = int(value.max())
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not is_whole(value):
            raise self.wrong(key, "a whole number")
        return value

    def wholes(self, key: str, count: int) -> list[int]:
        """A number for each layer, or one for all."""
        value = self._value(key, None)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and len(value) == count:
            return [int(each) for each in value]
        if not is_whole(value):
            raise self.wrong(key, f"a whole number, or one for each of {count} layers")
        return [value] * count

    def real(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if not is_number(value):
            raise self.wrong(key, "a number")
        return float(value)

    def layers(self, key: str, count: int, default: int) -> tuple[bool, ...]:
        """Which layers, by a flag for each; or by a number n: all but every nth, of 0 all."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biu" and len(value) == count:
            return tuple(bool(each) for each in value)
        if isinstance(value, bool):
            return (value,) * count
        if not is_whole(value) or value < 0:
            raise self.wrong(key, f"a whole number from 0, or a flag for each of {count} layers")
        return all_but_every(value, count) if value else (True,) * count

    def wrong(self, key: str, expected: str) -> ModelFormatError:
        found = shown(self._values[key]) if key in self._values else "nothing"
        return ModelFormatError(f"metadata {key!r}: expected {expected}, found {found}")

    def _value(self, key: str, default: MetadataValue | None) -> MetadataValue | None:
        self.read.add(key)
        return one_value(self._values[key]) if key in self._values else default
