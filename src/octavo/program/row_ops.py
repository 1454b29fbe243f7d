"""The row-wise ops: those that make each row from the same row of their inputs, a line of a table
each.

A line says what an op computes, in numpy, what that costs, and which fields of a native record its
attributes go to; csrc/program/row_ops.h is the same table for the native interpreter. The reference
interpreter, the cost interpreter and `encode` read these lines, and name no row-wise op. Inputs and
result have one width. Knows nothing of batches, buffers or kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from octavo.batch import FloatArray, IntArray
from octavo.program.ops import (
    Activate,
    ActivationKind,
    Add,
    Clamp,
    GatedActivation,
    GateKind,
    Norm,
    Rope,
    Scale,
    ScaleByPosition,
    WeightSpec,
)
from octavo.program.program import Op, Program

Wide = NDArray[np.floating[Any]]
_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_NONE: FloatArray = np.zeros(0, np.float32)
_NO_POSITIONS: IntArray = np.zeros(0, np.int32)
# Of an element: silu's exp, add, divide; gelu has more, by erf a polynomial; a clamped gate has a
# product, three bounds and up's sum.
_ACTIVATION_FLOPS: Mapping[GateKind, int] = {
    "silu": 3, "gelu": 26, "gelu_tanh": 7, "relu": 1, "clamped_glu": 8,
}  # fmt: skip
_GLU_LIMIT, _GLU_SLOPE = np.float32(7), np.float32(1.702)
RowClass = Literal["norm", "qkv", "mlp"]


class RowArgs(NamedTuple):
    """What a row-wise op may read: arrays of all rows of a batch."""

    x: FloatArray  # (rows, width)
    y: FloatArray  # (rows, width) the second input; of an op with one, x again
    vectors: Sequence[FloatArray | None] = ()  # of the op, None where it has none
    cos: FloatArray = _NONE  # (rows, rotary_dim / 2) of each row's position
    sin: FloatArray = _NONE
    positions: IntArray = _NO_POSITIONS  # (rows,)


@dataclass(frozen=True, slots=True)
class RowOp:
    compute: Callable[[Any, RowArgs], FloatArray]  # (op, arguments) -> (rows, width)
    flops: Callable[[Any, Program], float]  # of one row; exp, divide and square root count 1
    op_class: RowClass | None  # of the cost; None: that of the op which made its input
    fields: Mapping[str, str]  # field of the native record -> attribute of the op

    def vectors(self, op: Op) -> tuple[WeightSpec | None, ...]:
        """The weights that the op reads; None where it could read one."""
        if "vector" not in self.fields:
            return ()
        found: tuple[WeightSpec | None, ...] = getattr(op, self.fields["vector"])
        return found

    def rope_table(self, op: Op) -> str | None:
        """The rope table that the op reads, if it reads one."""
        return getattr(op, self.fields["rope_table"]) if "rope_table" in self.fields else None


def norm(op: Norm, args: RowArgs) -> FloatArray:
    x = args.x.reshape(len(args.x), op.heads, op.head_dim).astype(np.float64)
    if op.kind == "layer":
        x = x - np.mean(x, axis=-1, keepdims=True)
    x = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + op.eps)
    weight, bias = args.vectors
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    normed: FloatArray = x.astype(np.float32).reshape(args.x.shape)
    return normed


def rope(op: Rope, args: RowArgs) -> FloatArray:
    heads = args.x.reshape(len(args.x), op.heads, op.head_dim).copy()
    cos, sin = args.cos[:, None, :], args.sin[:, None, :]
    half = cos.shape[-1]
    if op.rope_style == "interleaved":
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    else:
        first, second = slice(0, half), slice(half, 2 * half)
    a, b = heads[..., first].copy(), heads[..., second].copy()
    heads[..., first] = a * cos - b * sin
    heads[..., second] = b * cos + a * sin
    turned: FloatArray = heads.reshape(args.x.shape)
    return turned


def activated(kind: ActivationKind, x: FloatArray) -> FloatArray:
    """Relu; gelu, x times the normal distribution's share below x; or x * sigmoid(t). The t of silu
    is x; that of gelu by tanh is 2 z, since 1 + tanh(z) = 2 sigmoid(2 z), z = sqrt(2 / pi) (x +
    0.044715 x^3)   (Hendrycks & Gimpel 2016)."""
    x = x.astype(np.float64)
    if kind == "relu":
        out = np.maximum(x, 0)
    elif kind == "gelu":
        out = x * _erfc(-x / np.sqrt(2)) / 2
    else:
        t = x if kind == "silu" else 2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        out = _times_sigmoid(x, t)
    rounded: FloatArray = out.astype(np.float32)
    return rounded


def _times_sigmoid(x: Wide, t: Wide) -> Wide:
    with np.errstate(over="ignore"):  # exp(-t) = inf gives the right limit, 0
        out: Wide = x / (1 + np.exp(-t))
    return out


def gated(kind: GateKind, gate: FloatArray, up: FloatArray) -> FloatArray:
    """What a GatedActivation of that kind makes."""
    if kind != "clamped_glu":
        return activated(kind, gate) * up
    gate, up = np.minimum(gate, _GLU_LIMIT), np.clip(up, -_GLU_LIMIT, _GLU_LIMIT)
    wide = gate.astype(np.float64)
    return _times_sigmoid(wide, wide * _GLU_SLOPE).astype(np.float32) * (up + 1)


def activate(op: Activate, args: RowArgs) -> FloatArray:
    return activated(op.activation, args.x)


def gated_activation(op: GatedActivation, args: RowArgs) -> FloatArray:
    return gated(op.activation, args.x, args.y)


def add(op: Add, args: RowArgs) -> FloatArray:
    return args.x + args.y


def scale(op: Scale, args: RowArgs) -> FloatArray:
    (factor,) = args.vectors
    return args.x * (np.float32(op.scale) * (1 if factor is None else factor))


def clamp(op: Clamp, args: RowArgs) -> FloatArray:
    limit = np.float32(op.limit)
    return np.clip(args.x, -limit, limit)


def scale_by_position(op: ScaleByPosition, args: RowArgs) -> FloatArray:
    steps = (args.positions // op.original).astype(np.float64)
    factors = 1 + float(np.float32(op.beta)) * np.log(1 + steps)
    return args.x * factors.astype(np.float32)[:, None]


ROW_OPS: dict[type[Op], RowOp] = {
    Norm: RowOp(
        norm,
        # square, sum, times 1/rms, times weight, plus bias; the sum and subtraction of a mean
        lambda op, program: (
            (5 if op.kind == "layer" else 3) + sum(v is not None for v in op.vectors)
        ) * op.x.width,
        "norm",
        {"x": "x", "norm_kind": "kind", "vector": "vectors", "heads": "heads",
         "head_dim": "head_dim", "eps": "eps"},
    ),
    Rope: RowOp(
        rope,
        # a rotated element: two products and their sum
        lambda op, program: 3 * op.heads * program.rotary_dim(op.rope_table),
        "qkv",
        {"x": "x", "heads": "heads", "head_dim": "head_dim",
         "rope_table": "rope_table", "rope_style": "rope_style"},
    ),
    Activate: RowOp(
        activate,
        lambda op, program: _ACTIVATION_FLOPS[op.activation] * op.out.width,
        "mlp",
        {"x": "x", "activation": "activation"},
    ),
    GatedActivation: RowOp(
        gated_activation,
        lambda op, program: (1 + _ACTIVATION_FLOPS[op.activation]) * op.out.width,
        "mlp",
        {"x": "gate", "y": "up", "activation": "activation"},
    ),
    Add: RowOp(
        add,
        lambda op, program: op.x.width,
        None,
        {"x": "x", "y": "y"},
    ),
    Scale: RowOp(
        scale,
        lambda op, program: op.x.width,
        None,
        {"x": "x", "scale": "scale", "vector": "vectors"},
    ),
    Clamp: RowOp(
        clamp,
        lambda op, program: 2 * op.x.width,
        None,
        {"x": "x", "scale": "limit"},
    ),
    ScaleByPosition: RowOp(
        scale_by_position,
        lambda op, program: op.x.width,
        None,
        {"x": "x", "scale": "beta", "original": "original"},
    ),
}  # fmt: skip
