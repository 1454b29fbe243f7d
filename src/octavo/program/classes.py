"""Classes of ops: what part of a model each belongs to, for sums of costs and of times.

An op's class follows from where its values go, never from a weight's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from octavo.program.ops import (
    Attend,
    Embed,
    Experts,
    Head,
    HeadLinear,
    HeadOp,
    Join,
    Linear,
    Norm,
    Route,
    Slice,
    StoreKV,
)
from octavo.program.program import Op, Program, inputs, output
from octavo.program.row_ops import ROW_OPS

OpClass = Literal["embed", "norm", "qkv", "attention", "output", "mlp", "head"]
CLASSES: tuple[OpClass, ...] = ("embed", "norm", "qkv", "attention", "output", "mlp", "head")


def classify(program: Program) -> list[OpClass]:
    """The class of each op, from what feeds attention and what attention feeds."""
    into: set[int] = set()  # values that become q, k or v
    feeds: set[int] = set()  # what their Linears read
    plain = {op.out.id for op in program.ops if isinstance(op, Linear) and op.add is None}
    out_of = {op.out.id for op in program.ops if isinstance(op, Attend)}
    for op in reversed(program.ops):
        match op:
            case Attend():
                into.add(op.q.id)
            case StoreKV():
                into.update(value.id for value in inputs(op))
            case Linear() if op.out.id in into:
                feeds.add(op.x.id)
            case Norm() if op.out.id in feeds and op.x.id in plain:  # q by a narrow one before it
                into.add(op.x.id)
            case _ if _keeps_class(op) and _written(op) in into:  # such a norm is one of q or k
                into.update(value.id for value in inputs(op))
    classes: list[OpClass] = []
    writers: dict[int | None, OpClass] = {}  # value -> class of the op that made it
    for op in program.ops:
        classes.append(_class_of(op, into, out_of, writers))
        writers[_written(op)] = classes[-1]
        if isinstance(op, HeadLinear) and op.x.id in out_of:
            out_of.add(op.out.id)
    return classes


def _keeps_class(op: Op) -> bool:
    """Whether what it makes goes where it would have gone without."""
    return type(op) in ROW_OPS or isinstance(op, HeadOp)


def _written(op: Op) -> int | None:
    out = output(op)
    return None if out is None else out.id


def _class_of(
    op: Op, into: set[int], out_of: set[int], writers: Mapping[int | None, OpClass]
) -> OpClass:
    match op:
        case Embed():
            return "embed"
        case Linear() | HeadLinear():
            return "qkv" if op.out.id in into else "output" if op.x.id in out_of else "mlp"
        case Join():
            return "qkv"
        case StoreKV() | Attend():
            return "attention"
        case Route() | Experts():
            return "mlp"
        case Slice():
            return writers[op.x.id]
        case Head():
            return "head"
        case _ if type(op) in ROW_OPS:
            return ROW_OPS[type(op)].op_class or writers[inputs(op)[0].id]
        case _:
            raise AssertionError(f"{type(op).__name__}: costs are those of readable programs")
