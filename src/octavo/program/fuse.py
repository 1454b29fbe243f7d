"""Rewrites: `lower` makes the packing of activations explicit; `fuse` joins what one pass over
memory can do.

Comes in: a Program of readable ops. Goes out: a Program of the ops the native interpreter runs,
with the same results bit for bit: a fused op does the same arithmetic on the same values in the
same order, and only skips writing what nobody else reads. Knows nothing of formats but the kind of
rows each matrix reads (`kinds` maps a matrix's name to it) and what the core says can be packed
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from octavo.kernels import native
from octavo.program.fused_ops import QKV, AttendQuantize, GateUp, Matmul, NormQuantize, Quantize
from octavo.program.ops import (
    Attend,
    GatedActivation,
    Head,
    Linear,
    Norm,
    Rope,
    StoreKV,
    Value,
    WeightSpec,
)
from octavo.program.program import Op, Program, inputs, output

# What a matrix's kernel reads: the row kinds of csrc/formats.h.
RowKind = Literal["a32", "abf16", "af32", "abf16x2"]


def lower(program: Program, kinds: Mapping[str, RowKind]) -> Program:
    """Make a Quantize and a Matmul of every Linear; those of one x and one kind share the
    Quantize."""
    return replace(program, ops=tuple(_Rewriter(program, kinds).lower()))


def fuse(program: Program, kinds: Mapping[str, RowKind]) -> Program:
    """`lower`, with NormQuantize, QKV, AttendQuantize, GateUp and the head's norm joined where they
    fit."""
    return replace(program, ops=tuple(_Rewriter(program, kinds).fuse()))


@dataclass
class _Rewriter:
    program: Program
    kinds: Mapping[str, RowKind]

    def __post_init__(self) -> None:
        self.ops = self.program.ops
        self.readers: dict[int, list[Op]] = {}
        self.writer: dict[int, Op] = {}
        for op in self.ops:
            for value in inputs(op):
                self.readers.setdefault(value.id, []).append(op)
            if (out := output(op)) is not None:
                self.writer[out.id] = op
        self.next_id = max(self.writer) + 1
        self.packed: dict[tuple[int, RowKind], Value] = {}  # (value, kind) -> its packed rows
        self.sources: dict[int, tuple[Value, WeightSpec]] = {}  # packed id -> (value, a consumer)
        self.replaced: dict[Op, Op | None] = {}  # op -> what stands in its place; None = absorbed

    def lower(self) -> list[Op]:
        out: list[Op] = []
        written: set[int] = set()  # packed values that some op before has written
        for op in self.ops:
            new = self.replaced.get(op, op)
            if isinstance(new, Linear):
                x = self.pack(new.x, new.weight)
                new = Matmul(x, new.weight, new.bias, new.add, new.out, new.scale)
            if new is None:
                continue
            for value in inputs(new):
                if value.packed and value.id not in written:
                    out.append(Quantize(*self.sources[value.id], value))
                    written.add(value.id)
            out.append(new)
            if (result := output(new)) is not None and result.packed:
                written.add(result.id)
        return out

    def fuse(self) -> list[Op]:
        for op in self.ops:
            match op:
                case StoreKV():
                    self.join_qkv(op)
                case GatedActivation():
                    self.join_gate_up(op)
                case Attend():
                    self.join_attend(op)
                case Norm():
                    self.join_norm(op)
        return self.lower()

    def pack(self, x: Value, consumer: WeightSpec) -> Value:
        """The packed form of `x` for `consumer`; one for each kind of rows."""
        key = (x.id, self.kinds[consumer.name])
        if key not in self.packed:
            packed = self.packed[key] = Value(self.next_id, x.width, packed=True)
            self.sources[packed.id] = (x, consumer)
            self.next_id += 1
        return self.packed[key]

    def linears_only(self, x: Value) -> list[Linear]:
        """The readers of x if all are Linears of one kind that read it as x, else none."""
        readers = [r for r in self.readers.get(x.id, []) if isinstance(r, Linear) and r.add != x]
        same = len({self.kinds[r.weight.name] for r in readers}) == 1
        return readers if same and len(readers) == len(self.readers[x.id]) else []

    def only_reader(self, x: Value) -> Op | None:
        readers = self.readers.get(x.id, [])
        return readers[0] if len(readers) == 1 else None

    def projected(self, value: Value, heads: int) -> tuple[Rope | None, Norm | None, Op]:
        """Return the Rope that made a q or k and the norm of each head before it, where there are
        such that QKV does, and what wrote the input of the first of them."""
        rope, norm, writer = None, None, self.writer[value.id]
        if isinstance(writer, Rope) and writer.heads == heads:
            rope, writer = writer, self.writer[writer.x.id]
        if (
            isinstance(writer, Norm)
            and writer.heads == heads
            and (writer.kind, writer.bias) == ("rms", None)
            and writer.weight is not None
        ):
            norm, writer = writer, self.writer[writer.x.id]
        return rope, norm, writer

    def join_norm(self, norm: Norm) -> None:
        if norm.heads > 1:
            return
        if isinstance(head := self.only_reader(norm.out), Head):
            self.replaced[norm] = None
            self.replaced[head] = replace(
                head, x=norm.x, norm_kind=norm.kind, norm=norm.weight, norm_bias=norm.bias,
                eps=norm.eps,
            )  # fmt: skip
        elif readers := self.linears_only(norm.out):
            consumer = readers[0].weight
            packed = self.pack(norm.out, consumer)
            self.replaced[norm] = NormQuantize(
                norm.x, norm.kind, norm.weight, norm.bias, norm.eps, consumer, packed
            )

    def join_attend(self, op: Attend) -> None:
        spec = self.program.groups[op.group]
        share = op.heads // spec.kv_heads * spec.v_dim  # columns that one kv head makes
        if share % native.GROUP_COLUMNS == 0 and (readers := self.linears_only(op.out)):
            consumer = readers[0].weight
            packed = self.pack(op.out, consumer)
            self.replaced[op] = AttendQuantize(
                op.q, op.heads, op.group, op.layer, op.scale, consumer, packed, op.softcap,
                op.sink_logits, op.slopes, op.far_q,
            )  # fmt: skip

    def join_gate_up(self, op: GatedActivation) -> None:
        gate, up = self.writer[op.gate.id], self.writer[op.up.id]
        readers = self.linears_only(op.out)
        if not (isinstance(gate, Linear) and isinstance(up, Linear) and readers and gate is not up):
            return
        plain = not (gate.bias or gate.add or up.bias or up.add) and gate.scale == up.scale == 1
        alone = self.only_reader(gate.out) is op and self.only_reader(up.out) is op
        alike = gate.x == up.x and self.kinds[gate.weight.name] == self.kinds[up.weight.name]
        if plain and alone and alike and op.out.width % native.GROUP_COLUMNS == 0:
            consumer = readers[0].weight
            packed = self.pack(op.out, consumer)
            x = self.pack(gate.x, gate.weight)
            self.replaced |= {gate: None, up: None}
            self.replaced[op] = GateUp(x, (gate.weight, up.weight), op.activation, consumer, packed)

    def join_qkv(self, store: StoreKV) -> None:
        attend = next(
            op for op in self.ops
            if isinstance(op, Attend) and (op.group, op.layer) == (store.group, store.layer)
        )  # fmt: skip
        spec = self.program.groups[store.group]
        rope_q, norm_q, q = self.projected(attend.q, attend.heads)
        rope_k, norm_k, k = self.projected(store.k, spec.kv_heads)
        v = None if store.v is None else self.writer[store.v.id]
        if not (isinstance(q, Linear) and isinstance(k, Linear) and isinstance(v, Linear)):
            return
        ropes = [(rope.rope_table, rope.rope_style) if rope else None for rope in (rope_q, rope_k)]
        norms = [norm for norm in (norm_q, norm_k) if norm is not None]
        absorbed = [op for op in (q, k, v, rope_q, rope_k, *norms) if op is not None]
        if (
            len({q.x, k.x, v.x}) == 1
            and len({self.kinds[op.weight.name] for op in (q, k, v)}) == 1
            and not (q.add or k.add or v.add)
            and q.scale == k.scale == v.scale == 1
            and all(self.only_reader(op.out) is not None for op in absorbed)
            and len({norm.eps for norm in norms}) <= 1
            and ropes[0] == ropes[1]
            and spec.k_dim % native.PANEL_ROWS == 0
            and spec.v_dim % native.PANEL_ROWS == 0
        ):
            x = self.pack(q.x, q.weight)
            self.replaced |= dict.fromkeys(absorbed)
            self.replaced[store] = QKV(
                x=x,
                weights=(q.weight, k.weight, v.weight),
                biases=(q.bias, k.bias, v.bias),
                norms=(norm_q.weight if norm_q else None, norm_k.weight if norm_k else None),
                eps=norms[0].eps if norms else 0.0,
                heads=attend.heads,
                head_dim=spec.k_dim,
                rope_table=rope_q.rope_table if rope_q else None,
                rope_style=rope_q.rope_style if rope_q else None,
                group=store.group,
                layer=store.layer,
                out=attend.q,
            )
