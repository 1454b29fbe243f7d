"""From a lowered program to the arrays that the native interpreter reads: op records and row
buffers.

Values whose lives do not overlap share a buffer, so that the memory of a forward does not grow with
the number of layers. Ops, records and kinds of rows are looked up by the names that the core
exports; a core of other names is refused at import. Knows nothing of weights' contents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from octavo.errors import KernelError
from octavo.kernels import native
from octavo.program.fuse import RowKind
from octavo.program.fused_ops import QKV, AttendQuantize, GateUp, Matmul, NormQuantize, Quantize
from octavo.program.ops import (
    Attend,
    Embed,
    Experts,
    GateKind,
    Head,
    HeadLinear,
    Join,
    NormKind,
    RopeStyle,
    Route,
    RouteScore,
    Slice,
    StoreKV,
    Value,
)
from octavo.program.program import Op, Program, inputs, output
from octavo.program.row_ops import ROW_OPS
from octavo.program.slopes import Slopes

RECORD = np.dtype(list(native.RECORD_FIELDS))
BUFFER = np.dtype(list(native.BUFFER_FIELDS))
_FLOAT_ROWS = -1
_KINDS = (NormKind, GateKind, RopeStyle, RouteScore)

# Which field of a record each attribute of an op goes to; matrix and vector hold several.
_FIELDS: dict[type[Op], Mapping[str, str]] = {
    Embed: {"matrix": "matrices", "table": "in_file", "offset": "offset"},
    Slice: {"x": "x", "offset": "begin"},
    Quantize: {"x": "x"},
    NormQuantize: {"x": "x", "norm_kind": "kind", "vector": "vectors", "eps": "eps"},
    Matmul: {"x": "x", "add": "add", "matrix": "weight", "vector": "bias",
             "scale": "scale"},
    StoreKV: {"x": "k", "y": "v", "group": "group", "layer": "layer"},
    Attend: {"x": "q", "heads": "heads", "group": "group", "layer": "layer", "scale": "scale",
             "softcap": "softcap", "vector": "sink_logits", "slopes": "slopes", "y": "far_q"},
    AttendQuantize: {"x": "q", "heads": "heads", "group": "group", "layer": "layer",
                     "scale": "scale", "softcap": "softcap", "vector": "sink_logits",
                     "slopes": "slopes", "y": "far_q"},
    GateUp: {"x": "x", "matrix": "weights", "activation": "activation"},
    QKV: {"x": "x", "matrix": "weights", "vector": "vectors", "eps": "eps", "heads": "heads",
          "head_dim": "head_dim", "rope_table": "rope_table", "rope_style": "rope_style",
          "group": "group", "layer": "layer"},
    Route: {"x": "x", "vector": "choice_bias", "score": "score", "experts": "experts",
            "used": "used", "renormalise": "renormalise", "scale": "scale",
            "expert_groups": "groups", "groups_used": "groups_used"},
    Experts: {"x": "x", "y": "route", "add": "add", "matrix": "weights",
              "vector": "biases", "activation": "activation", "experts": "experts", "used": "used",
              "scale": "scale"},
    HeadLinear: {"x": "x", "matrix": "weight", "heads": "heads"},
    Join: {"x": "x", "y": "y", "heads": "heads"},
    Head: {"x": "x", "matrix": "weight", "norm_kind": "norm_kind", "vector": "vectors",
           "eps": "eps", "scale": "scale", "softcap": "softcap", "tokens": "tokens"},
    **{op: row.fields for op, row in ROW_OPS.items()},
}  # fmt: skip


def check_core(ops: Collection[str], fields: Collection[str]) -> None:
    """Refuse a core that has other ops or other fields of a record."""
    _same("an op", {op.__name__ for op in _FIELDS}, ops)
    _same("a record field", {"code", "out", "row_kind"}.union(*_FIELDS.values()), fields)


def check_kinds(kinds: Collection[str]) -> None:
    """Refuse a core that has other kinds of norms, activations, rope styles or scores."""
    _same("a kind", {name for of in _KINDS for name in get_args(of)}, kinds)


def _same(what: str, ours: Collection[str], cores: Collection[str]) -> None:
    for lacks_it, names in (
        ("the core", set(ours).difference(cores)),
        ("octavo.program", set(cores).difference(ours)),
    ):
        if names:
            raise KernelError(
                f"the compiled core is of another source tree: {', '.join(sorted(names))} "
                f"is {what} that {lacks_it} lacks; build it again with `make build` or "
                "`pip install .`"
            )


check_core(native.OPS, RECORD.names or ())
check_kinds((*native.NORMS, *native.ACTIVATIONS, *native.ROPE_STYLES, *native.ROUTE_SCORES))


@dataclass(frozen=True, slots=True)
class EncodedProgram:
    records: NDArray[np.void]  # (ops,) RECORD
    buffers: NDArray[np.void]  # (buffers,) BUFFER
    matrices: tuple[str, ...]  # weight names by the index records use
    vectors: tuple[str, ...]
    tables: tuple[str, ...]  # of those whose rows are read from the file
    rope_tables: tuple[str, ...]
    slopes: tuple[Slopes, ...]
    op_names: tuple[str, ...]  # class of each op, for counters


def encode(program: Program, kinds: Mapping[str, RowKind]) -> EncodedProgram:
    buffers = _Buffers(program, kinds)
    weights = program.weights().values()
    matrices = [w.name for w in weights if w.kind == "matrix"]
    vectors = [w.name for w in weights if w.kind == "vector"]
    tables = [w.name for w in weights if w.kind == "table"]
    rope_tables = list(program.rope_tables)
    attends = [op for op in program.ops if isinstance(op, Attend | AttendQuantize)]
    slopes = list(dict.fromkeys(op.slopes for op in attends if op.slopes is not None))

    def index(field: str, value: Any) -> Any:
        """Return what stands in a record for an attribute of an op."""
        match field:
            case "x" | "y" | "add":
                return -1 if value is None else buffers.of[value.id]
            case "matrix" | "vector":
                names = matrices if field == "matrix" else vectors
                specs = value if isinstance(value, tuple) else (value,)
                found = [-1 if spec is None else names.index(spec.name) for spec in specs]
                return found + [-1] * (RECORD[field].shape[0] - len(found))
            case "table":
                return -1 if value is None else tables.index(value.name)
            case "norm_kind":
                return -1 if value is None else native.NORMS.index(value)
            case "rope_table":
                return -1 if value is None else rope_tables.index(value)
            case "slopes":
                return -1 if value is None else slopes.index(value)
            case "rope_style":
                return -1 if value is None else native.ROPE_STYLES.index(value)
            case "activation":
                return native.ACTIVATIONS.index(value)
            case "score":
                return native.ROUTE_SCORES.index(value)
        return value

    records = np.full(len(program.ops), -1, dtype=RECORD)
    records["eps"] = records["scale"] = records["softcap"] = 0
    for i, op in enumerate(program.ops):
        assert type(op) in _FIELDS, f"{type(op).__name__} is not a lowered op: run fuse.lower first"
        buffers.place(op, i)
        record = records[i]
        record["code"] = native.OPS.index(type(op).__name__)
        if (out := output(op)) is not None:
            record["out"] = buffers.of[out.id]
        for field, attribute in _FIELDS[type(op)].items():
            record[field] = index(field, getattr(op, attribute))
        match op:  # these pack rows themselves
            case Head() | HeadLinear():
                record["row_kind"][0] = _kind(kinds[op.weight.name])
            case Experts():
                record["row_kind"] = [_kind(kinds[spec.name]) for spec in op.weights]
    return EncodedProgram(
        records=records,
        buffers=np.array(buffers.specs, dtype=BUFFER),
        matrices=tuple(matrices),
        vectors=tuple(vectors),
        tables=tuple(tables),
        rope_tables=tuple(rope_tables),
        slopes=tuple(slopes),
        op_names=tuple(type(op).__name__ for op in program.ops),
    )


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
        return out.width, _kind(self._kinds[op.consumer.name])

    def _take(self, spec: tuple[int, int]) -> int:
        for buffer in self._free:
            if self.specs[buffer] == spec:
                self._free.remove(buffer)
                return buffer
        self.specs.append(spec)
        return len(self.specs) - 1


def _kind(kind: RowKind) -> int:
    return native.ROW_KINDS.index(kind.upper())


def _may_share(op: Op, value: Value) -> bool:
    """Whether the op may write its result over `value`: it reads each element, or row, before it
    writes it."""
    return value == op.add if isinstance(op, Matmul | Experts) else type(op) in ROW_OPS
