"""A weight as a part of a tensor: which of its rows, in which order, which way it lies, and the
zero rows or columns that stand after each head; or as several tensors, one after the other.

A family that stores some weights otherwise than the program names them is a table of views by part
(`attn_q`); `weight_orders` has the usual ones. Comes in: a tensor's bytes in place. Goes out: the
weight's own, in place where they are one run. Knows no file and no family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from octavo.weights.dequantize import Bytes, dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo

Values = npt.NDArray[np.generic]
_STRIP = 64  # rows transposed at once: three times as fast as all, where rows are 2^n bytes


class Padding(NamedTuple):
    """Each head's `size` rows or columns become `padded`, the new ones zero."""

    size: int
    padded: int


@dataclass(frozen=True, slots=True)
class WeightView:
    """The whole tensor of the weight's own name, unless it says otherwise.

    Of a vector, only `tensor`, `rows` and `pad_rows` count.
    """

    tensor: str = ""  # its part in the files: "attn_qkv"; what `view_of` returns has whole names
    rows: tuple[range, ...] = ()  # of the tensor, one after the other; none: all
    of: int = 0  # rows that the tensor has, where not all are the weight's
    transposed: bool = False  # the tensor is (in, out): its columns are the rows
    pad_rows: Padding | None = None
    pad_cols: Padding | None = None
    tensors: tuple[str, ...] = ()  # instead of one, in turn; each has as many of its rows
    stacked: int = 0  # matrices in the tensor, which then has three dimensions; 0: it is one
    transposed_each: int = 0  # matrices that the rows are, each of which is transposed
    of_pairs: int | None = None  # rows are in pairs: the weight's are the first (0) or the second

    @property
    def names(self) -> tuple[str, ...]:
        """Return the tensors that the weight is in."""
        return self.tensors or (self.tensor,)

    def tensor_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each tensor that a weight of `shape` is in."""
        if self.transposed_each:
            return (self.of, shape[0] // self.transposed_each)
        rows, *cols = (
            size if pad is None else size // pad.padded * pad.size
            for size, pad in zip(shape, (self.pad_rows, self.pad_cols), strict=False)
        )
        rows = (self.of or rows) // len(self.names)
        stack: tuple[int, ...] = ()
        if self.stacked:
            stack, rows = (self.stacked,), rows // self.stacked
        rows *= 1 if self.of_pairs is None else 2
        return (*stack, *cols, rows) if self.transposed else (*stack, rows, *cols)

    def needs_values(self, info: TensorInfo) -> bool:
        """Whether the weight is not a matter of whole rows, and the tensor's type has only such."""
        cut = self.transposed or bool(self.transposed_each) or self.pad_cols is not None
        if len(info.shape) == 1:
            cut = bool(self.rows) or self.pad_rows is not None
        return cut and info.type.block_values > 1

    def read(self, info: TensorInfo, data: Bytes) -> tuple[GGMLType, Bytes]:
        """The weight's bytes, row after row, and their type: F32 if it `needs_values`.

        `data` is all of the tensor, whose shape was checked.
        """
        type = info.type
        if self.needs_values(info):
            type, data = GGMLType.F32, _bytes(dequantize(type, data, info.shape))
        cut = self.rows or self.pad_rows or self.pad_cols or self.of_pairs is not None
        if not (cut or self.transposed):
            return type, data
        if self.stacked and self.transposed:
            return type, _bytes(self._transposed_stack(info, data))
        shape = (-1, *info.shape[2:]) if self.stacked else info.shape
        if type.block_values == 1:
            values: Values = data.view(f"<u{type.block_bytes}").reshape(shape)
        else:
            values = data.reshape(math.prod(info.shape[:-1]), -1)  # rows of whole blocks
        if self.transposed:
            values = _transposed(values, self.rows or (range(info.shape[1]),))
        elif self.of_pairs is not None:
            values = values[self.of_pairs :: 2]
        elif self.rows:
            parts = [values[run.start : run.stop] for run in self.rows]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if self.transposed_each:
                values = values.reshape(self.transposed_each, -1, info.shape[1]).swapaxes(1, 2)
        for axis, pad in enumerate((self.pad_rows, self.pad_cols)[: values.ndim]):
            if pad is not None:
                values = _padded(values, axis, pad)
        return type, _bytes(values)

    def _transposed_stack(self, info: TensorInfo, data: Bytes) -> Values:
        """Transpose each matrix of the stack, and put one after the other."""
        stack: Values = data.view(f"<u{info.type.block_bytes}").reshape(info.shape)
        columns = range(info.shape[-1])[self.of_pairs or 0 :: 1 if self.of_pairs is None else 2]
        return np.concatenate([_transposed(matrix, (columns,)) for matrix in stack])


class Part(NamedTuple):
    """A weight in a tensor of the files, or in several of one type."""

    view: WeightView
    infos: tuple[TensorInfo, ...]

    @property
    def info(self) -> TensorInfo:
        """Return the tensor that it is in, or begins in."""
        return self.infos[0]

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return dict(zip(self.view.names, self.infos, strict=True))

    def read(self, data: Callable[[str], Bytes]) -> tuple[GGMLType, Bytes]:
        """The weight's bytes, row after row, and their type. `data` has those of a tensor."""
        found = [self.view.read(info, data(name)) for name, info in self.tensors.items()]
        type, first = found[0]
        return type, first if len(found) == 1 else np.concatenate([each for _, each in found])


WHOLE = WeightView()
Views = Mapping[str, WeightView]  # by part: "attn_q" is of blk.0.attn_q.weight and of its bias


def view_of(views: Views, name: str) -> WeightView:
    """The view of the program's weight `name`, its tensor by whole name."""
    *block, part, kind = name.split(".")
    view = views.get(part, WHOLE)
    if kind == "bias" and (view.transposed or view.pad_cols):
        view = replace(view, transposed=False, pad_cols=None)
    tensor, *tensors = (
        ".".join((*block, each, kind)) for each in (view.tensor or part, *view.tensors)
    )
    return replace(view, tensor=tensor, tensors=tuple(tensors))


def stored_bytes(type: GGMLType, shape: tuple[int, ...]) -> int:
    """Bytes of a weight of `shape` in a tensor of `type`."""
    return math.prod(shape) * type.block_bytes // type.block_values


def _transposed(values: Values, runs: tuple[range, ...]) -> Values:
    """The columns of `runs` as rows; by strips, so that what is read and written stays near."""
    out = np.empty((sum(map(len, runs)), len(values)), values.dtype)
    first = 0
    for run in runs:
        to = out[first : first + len(run)]
        for strip in range(0, len(values), _STRIP):
            rows = slice(strip, strip + _STRIP)
            to[:, rows] = values[rows, run.start : run.stop : run.step].T
        first += len(run)
    return out


def _padded(values: Values, axis: int, pad: Padding) -> Values:
    shape = values.shape
    before, heads, after = shape[:axis], shape[axis] // pad.size, shape[axis + 1 :]
    out = np.zeros((*before, heads, pad.padded, *after), values.dtype)
    keep = (*[slice(None)] * (axis + 1), slice(pad.size))
    out[keep] = values.reshape(*before, heads, pad.size, *after)
    return out.reshape(*before, heads * pad.padded, *after)


def _bytes(values: Values) -> Bytes:
    """In place if they lie row after row."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
