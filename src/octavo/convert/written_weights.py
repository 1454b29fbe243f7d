"""A safetensors file that is written tensor by tensor, as float32 or bf16, and what rounding lost.

Comes in: names and shapes first, then float32 values in that order. The format is as in
`weights/safetensors.py`. Knows no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from octavo.batch import FloatArray
from octavo.errors import ModelFormatError

Dtype = Literal["f32", "bf16"]
DTYPES: tuple[Dtype, ...] = ("f32", "bf16")
_BYTES: Mapping[Dtype, int] = {"f32": 4, "bf16": 2}
_INFINITE = 0x7F80  # as bf16, without its sign
_STRIP = 1 << 20  # values at once, so that temporaries stay small


@dataclass(slots=True)
class Rounding:
    """Adds up what was lost, over the values of all matrices."""

    squares: float = 0.0
    lost_squares: float = 0.0

    def add(self, values: FloatArray, rounded: npt.NDArray[np.uint16]) -> None:
        back = (rounded.astype(np.uint32) << 16).view(np.float32)
        self.squares += float(np.square(values, dtype=np.float64).sum())
        self.lost_squares += float(np.square(values - back, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        """The root mean square of what was lost, over that of the values."""
        return math.sqrt(self.lost_squares / self.squares) if self.squares else 0.0


def nbytes(shapes: Mapping[str, tuple[int, ...]], dtype: Dtype) -> int:
    """Bytes of the tensors alone."""
    return sum(math.prod(shape) for shape in shapes.values()) * _BYTES[dtype]


def write_weights(
    file: BinaryIO,
    shapes: Mapping[str, tuple[int, ...]],
    values: Iterable[FloatArray],
    dtype: Dtype,
) -> Rounding:
    """Write a whole file; `values` come in the order of `shapes`. Raises ModelFormatError for one
    that is no number or too large."""
    file.write(_header(shapes, dtype))
    rounding = Rounding()
    for (name, shape), each in zip(shapes.items(), values, strict=True):
        assert each.shape == shape, name
        flat = np.ascontiguousarray(each, np.float32).reshape(-1)
        for begin in range(0, flat.size, _STRIP):
            strip = flat[begin : begin + _STRIP]
            if not np.isfinite(strip).all():
                raise ModelFormatError(f"tensor {name!r} has values that are no numbers")
            if dtype == "f32":
                file.write(strip.astype("<f4", copy=False).tobytes())
            else:
                rounded = _rounded(strip)
                if (rounded & 0x7FFF == _INFINITE).any():
                    raise ModelFormatError(f"tensor {name!r} has values too large for bf16")
                file.write(rounded.astype("<u2", copy=False).tobytes())
                if each.ndim > 1:  # the few large values of norms would hide the others
                    rounding.add(strip, rounded)
    return rounding


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: Dtype) -> bytes:
    found: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * _BYTES[dtype]
        found[name] = {"dtype": dtype.upper(), "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(found).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _rounded(values: FloatArray) -> npt.NDArray[np.uint16]:
    """The nearest bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
