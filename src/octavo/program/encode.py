"""From a lowered program to the arrays that the native interpreter reads: op records and row
buffers.

Values whose lives do not overlap share a buffer, so that the memory of a forward does not grow with
the number of layers. Knows the bytes of OpRecord in csrc/program/program.h; knows nothing of
weights' contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.program.fuse import RowKind, inputs, output
from octavo.program.ops import (
    QKV,
    Attend,
    AttendQuantize,
    Embed,
    GateUp,
    Head,
    Matmul,
    NormQuantize,
    Op,
    Program,
    Quantize,
    RmsNorm,
    Rope,
    StoreKV,
    SwiGLU,
    Value,
    WeightSpec,
)

RECORD = np.dtype(
    [
        ("code", np.int32),
        ("x", np.int32),
        ("y", np.int32),
        ("add", np.int32),
        ("out", np.int32),
        ("matrix", np.int32, 3),
        ("vector", np.int32, 3),
        ("heads", np.int32),
        ("head_dim", np.int32),
        ("rotary_dim", np.int32),
        ("rope_style", np.int32),
        ("row_kind", np.int32),
        ("group", np.int32),
        ("layer", np.int32),
        ("eps", np.float32),
        ("scale", np.float32),
    ]
)
BUFFER = np.dtype([("width", np.int32), ("kind", np.int32)])
_CODES = (Embed, RmsNorm, Quantize, NormQuantize, Matmul, Rope, StoreKV, Attend, AttendQuantize,
          SwiGLU, GateUp, QKV, Head)  # fmt: skip
_STYLES = ("interleaved", "half")
_KINDS: dict[RowKind, int] = {"a32": 0, "abf16": 1, "af32": 2, "abf16x2": 3}
_FLOAT_ROWS = -1


@dataclass(frozen=True, slots=True)
class EncodedProgram:
    records: NDArray[np.void]  # (ops,) RECORD
    buffers: NDArray[np.void]  # (buffers,) BUFFER
    matrices: tuple[str, ...]  # weight names by the index records use
    vectors: tuple[str, ...]
    op_names: tuple[str, ...]  # class of each op, for counters


def encode(program: Program, kinds: Mapping[str, RowKind]) -> EncodedProgram:
    buffers = _Buffers(program, kinds)
    weights = program.weights().values()
    matrices = [w.name for w in weights if w.kind == "matrix"]
    vectors = [w.name for w in weights if w.kind == "vector"]
    records = np.full(len(program.ops), -1, dtype=RECORD)
    for i, op in enumerate(program.ops):
        buffers.place(op, i)
        for name, value in _fields(op, buffers, matrices, vectors).items():
            records[i][name] = value
        if isinstance(op, Head):  # packs its rows itself
            records[i]["row_kind"] = _KINDS[kinds[op.weight.name]]
    return EncodedProgram(
        records=records,
        buffers=np.array(buffers.specs, dtype=BUFFER),
        matrices=tuple(matrices),
        vectors=tuple(vectors),
        op_names=tuple(type(op).__name__ for op in program.ops),
    )


def _fields(op: Op, buffers: _Buffers, matrices: list[str], vectors: list[str]) -> dict[str, Any]:
    def at(value: Value | None) -> int:
        return -1 if value is None else buffers.of[value.id]

    def names(table: list[str], *weights: WeightSpec | None) -> list[int]:
        found = [-1 if w is None else table.index(w.name) for w in weights]
        return found + [-1] * (3 - len(found))

    out = {"code": _CODES.index(type(op)), "eps": 0.0, "scale": 0.0, "out": at(output(op))}
    match op:
        case Embed():
            return out | {"matrix": names(matrices, op.table)}
        case RmsNorm() | NormQuantize():
            return out | {"x": at(op.x), "vector": names(vectors, op.weight), "eps": op.eps}
        case Quantize():
            return out | {"x": at(op.x)}
        case Matmul():
            return out | {"x": at(op.x), "add": at(op.add), "matrix": names(matrices, op.weight),
                          "vector": names(vectors, op.bias)}  # fmt: skip
        case Rope():
            return out | {"x": at(op.x), "heads": op.heads, "head_dim": op.head_dim,
                          "rotary_dim": op.rotary_dim,
                          "rope_style": _STYLES.index(op.style)}  # fmt: skip
        case StoreKV():
            return out | {"x": at(op.k), "y": at(op.v), "group": op.group, "layer": op.layer}
        case Attend() | AttendQuantize():
            return out | {"x": at(op.q), "heads": op.heads, "group": op.group, "layer": op.layer,
                          "scale": op.scale}  # fmt: skip
        case SwiGLU():
            return out | {"x": at(op.gate), "y": at(op.up)}
        case GateUp():
            return out | {"x": at(op.x), "matrix": names(matrices, op.gate, op.up)}
        case QKV():
            return out | {"x": at(op.x), "matrix": names(matrices, *op.weights),
                          "vector": names(vectors, *op.biases), "heads": op.heads,
                          "head_dim": op.head_dim, "rotary_dim": op.rotary_dim,
                          "rope_style": _STYLES.index(op.style), "group": op.group,
                          "layer": op.layer}  # fmt: skip
        case Head():
            return out | {"x": at(op.x), "matrix": names(matrices, op.weight),
                          "vector": names(vectors, op.norm), "eps": op.eps}  # fmt: skip
    raise AssertionError(f"{type(op).__name__} is not a lowered op: run fuse.lower first")


class _Buffers:
    """Gives each value a buffer from its first write to its last read."""

    def __init__(self, program: Program, kinds: Mapping[str, RowKind]) -> None:
        self.specs: list[tuple[int, int]] = []  # (width, kind)
        self.of: dict[int, int] = {}  # value id -> buffer
        self._free: list[int] = []
        self._kinds = kinds
        self._last_read: dict[int, int] = {}
        for i, op in enumerate(program.ops):
            for value in inputs(op):
                self._last_read[value.id] = i

    def place(self, op: Op, index: int) -> None:
        dying = {self.of[v.id]: v for v in inputs(op) if self._last_read[v.id] == index}
        out = output(op)
        if out is not None:
            in_place = next((b for b, v in dying.items() if _may_share(op, v)), None)
            self.of[out.id] = self._take(self._spec(op, out)) if in_place is None else in_place
            dying.pop(self.of[out.id], None)
        self._free.extend(dying)

    def _spec(self, op: Op, out: Value) -> tuple[int, int]:
        if not out.packed:
            return out.width, _FLOAT_ROWS
        assert isinstance(op, Quantize | NormQuantize | AttendQuantize | GateUp)
        return out.width, _KINDS[self._kinds[op.consumer.name]]

    def _take(self, spec: tuple[int, int]) -> int:
        for buffer in self._free:
            if self.specs[buffer] == spec:
                self._free.remove(buffer)
                return buffer
        self.specs.append(spec)
        return len(self.specs) - 1


def _may_share(op: Op, value: Value) -> bool:
    """Whether the op may write its result over `value`: it reads each element, or row, before it
    writes it."""
    match op:
        case Matmul():
            return value == op.add
        case Rope() | SwiGLU() | RmsNorm():
            return not value.packed and value.width == op.out.width
    return False
