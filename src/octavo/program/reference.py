"""The reference interpreter: numpy, slow and obvious. The oracle for every kernel.

Comes in: a Program of readable ops, weights as float32 arrays by name, a Batch. Goes out: a
StepOutput. `activations` says how rows are rounded before a matrix meets them: "float32" not at
all, "bf16", or "int8" as the kernels do (one scale for 32 columns). Knows nothing of packing,
pages' layout or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Batch, FloatArray, IntArray, StepOutput, Want
from octavo.program.experts import mixed, routed
from octavo.program.heads import of_heads
from octavo.program.ops import (
    Attend,
    Embed,
    Experts,
    Head,
    HeadOp,
    Linear,
    Route,
    Slice,
    StoreKV,
    WeightSpec,
)
from octavo.program.program import Op, Program, inputs, output
from octavo.program.rope import cos_sin
from octavo.program.rounding import round_bf16, round_int8
from octavo.program.row_ops import ROW_OPS, RowArgs

RowPrecision = Literal["float32", "bf16", "int8"]
Rounding = Callable[[FloatArray], FloatArray]  # of (rows, heads, dim)
DoubleArray = NDArray[np.float64]
_FAR = 2  # the third of q as it is, to sinks and far from the beginning
Places = NDArray[np.intp]


class Table(Protocol):
    """Rows that stay in a file: `octavo.weights.file_table.FileTable`."""

    def gather(self, rows: IntArray) -> FloatArray: ...


class ReferenceInterpreter:
    """`run` reads and writes `self.kv`: (layer of the group, slot, kv_head, dim) arrays for each
    group."""

    def __init__(
        self,
        program: Program,
        weights: Mapping[str, FloatArray],
        *,
        num_blocks: int,
        block_size: int = 32,
        activations: RowPrecision = "float32",
        round_k: Rounding | None = None,
        round_v: Rounding | None = None,
        round_q: Rounding | None = None,
        sinks: int = 0,
        tables: Mapping[str, Table] = MappingProxyType({}),
    ) -> None:
        """`round_k` and `round_v` are what the pages' formats make of K and of V; None leaves them
        as they are. `round_q` is what K's makes of q, `round_k` unless given. The first `sinks`
        tokens of groups of full attention are bf16, in groups of their own behind all others.
        `tables` are those that stay in a file."""
        self.program = program
        self.block_size = block_size
        self._weights, self._tables = weights, tables
        self._round = {"float32": _identity, "bf16": round_bf16, "int8": round_int8}[activations]
        self._round_k, self._round_v = round_k or _identity, round_v or _identity
        self._round_q = round_q or self._round_k
        slots = num_blocks * block_size
        self._sinks = sinks
        groups = range(len(program.groups))
        self.kv = [
            tuple(
                np.zeros((program.layers_of_group[g], slots, spec.kv_heads, dim), np.float32)
                for dim in (spec.k_dim, spec.v_dim)
            )
            for g in [*groups, *(program.full_groups if sinks else ())]
            for spec in [program.groups[g]]
        ]

    def run(self, batch: Batch) -> StepOutput:
        rows: dict[int, FloatArray] = {}  # value id -> (rows, width)
        for op in self.program.ops:
            if isinstance(op, Head):
                return self._head(op, rows[op.x.id], batch)
            self._step(op, rows, batch)
        raise AssertionError("a program ends with its head")

    def _step(self, op: Op, rows: dict[int, FloatArray], batch: Batch) -> None:
        match op:
            case Embed(in_file=WeightSpec() as table):
                rows[op.out.id] = self._tables[table.name].gather(batch.tokens)
            case Embed():
                places = (op.table, batch.tokens), (op.positions, batch.positions + op.offset)
                found = [self._weights[spec.name][at] for spec, at in places if spec is not None]
                rows[op.out.id] = sum(found[1:], start=found[0])
            case Slice():
                rows[op.out.id] = rows[op.x.id][:, op.begin : op.begin + op.out.width]
            case Linear():
                y = self._round(rows[op.x.id]) @ self._weights[op.weight.name].T
                if op.bias is not None:
                    y = y + self._weights[op.bias.name]
                y = y * np.float32(op.scale)
                rows[op.out.id] = y if op.add is None else y + rows[op.add.id]
            case StoreKV():
                k = rows[op.k.id]
                self._store(op, k, None if op.v is None else rows[op.v.id], batch)
            case Attend():
                far_q = None if op.far_q is None else rows[op.far_q.id]
                rows[op.out.id] = self._attend(op, rows[op.q.id], far_q, batch)
            case Route():
                bias = None if op.choice_bias is None else self._weights[op.choice_bias.name]
                rows[op.out.id] = routed(op, rows[op.x.id], bias)
            case Experts():
                weights = [self._weights[spec.name] for spec in op.weights]
                biases = [None if s is None else self._weights[s.name] for s in op.biases]
                y = mixed(op, rows[op.x.id], rows[op.route.id], weights, biases, self._round)
                rows[op.out.id] = y if op.add is None else y + rows[op.add.id]
            case _ if isinstance(op, HeadOp):
                values = [rows[value.id] for value in inputs(op)]
                rows[op.out.id] = of_heads(op, values, self._weights, self._round)
            case _ if type(op) in ROW_OPS:
                self._row_op(op, rows, batch.positions)
            case _:
                raise AssertionError(f"{type(op).__name__} is not a readable op")

    def _row_op(self, op: Op, rows: dict[int, FloatArray], positions: IntArray) -> None:
        row_op, values = ROW_OPS[type(op)], inputs(op)
        vectors = [
            None if spec is None else self._weights[spec.name] for spec in row_op.vectors(op)
        ]
        args = RowArgs(rows[values[0].id], rows[values[-1].id], vectors, positions=positions)
        if (table := row_op.rope_table(op)) is not None:
            cos, sin = cos_sin(self.program.rope_tables[table], positions)
            args = args._replace(cos=cos, sin=sin)
        out = output(op)
        assert out is not None
        rows[out.id] = row_op.compute(op, args)

    def _parts(self, group: int, positions: IntArray) -> list[tuple[int, Places, bool]]:
        """Of positions the sinks and the others: their group, which of them, whether sinks."""
        full = self.program.full_groups
        if not self._sinks or group not in full:
            return [(group, np.arange(len(positions)), False)]
        of_sinks = len(self.program.groups) + full.index(group)
        first = positions < self._sinks
        parts = (of_sinks, first, True), (group, ~first, False)
        return [(part, np.flatnonzero(which), sinks) for part, which, sinks in parts if any(which)]

    def _slots(self, group: int, sequence: int, positions: IntArray, batch: Batch) -> IntArray:
        table = batch.block_tables[group, sequence]
        slots: IntArray = table[positions // self.block_size] * self.block_size
        return slots + positions % self.block_size

    def _store(self, op: StoreKV, k: FloatArray, v: FloatArray | None, batch: Batch) -> None:
        for s, (begin, end) in enumerate(zip(batch.row_starts, batch.row_starts[1:], strict=False)):
            stored = np.arange(begin, end)
            stored = stored[batch.positions[begin:end] >= batch.write_starts[s]]
            for group, which, sinks in self._parts(op.group, batch.positions[stored]):
                rows, (keys, values) = stored[which], self.kv[group]
                slots = self._slots(group, s, batch.positions[rows], batch)
                round_k, round_v = (round_bf16,) * 2 if sinks else (self._round_k, self._round_v)
                key = k[rows].reshape(-1, *keys.shape[2:])
                if v is None:
                    value = key[..., : values.shape[3]]
                else:
                    value = v[rows].reshape(-1, *values.shape[2:])
                keys[op.layer, slots], values[op.layer, slots] = round_k(key), round_v(value)

    def _attend(
        self, op: Attend, q: FloatArray, far_q: FloatArray | None, batch: Batch
    ) -> FloatArray:
        spec = self.program.groups[op.group]
        share = op.heads // spec.kv_heads
        out = np.zeros((len(q), op.heads, spec.v_dim), np.float32)
        heads, far = ((q if x is None else x).reshape(len(q), op.heads, -1) for x in (q, far_q))
        rounded = self._round_q(heads), round_bf16(heads), self._round_q(far)
        asked = [x.astype(np.float64) for x in rounded]
        logits = None if op.sink_logits is None else self._weights[op.sink_logits.name]
        for s, (begin, end) in enumerate(zip(batch.row_starts, batch.row_starts[1:], strict=False)):
            for row in range(begin, end):
                last = int(batch.positions[row])
                is_far = spec.window > 0 and last >= spec.most_seen
                first = last - spec.window + 1 if is_far else 0
                seen = self._read(op, s, first, last + 1, batch)
                if is_far and spec.beginning:
                    seen = [*self._read(op, s, 0, spec.beginning, batch, _FAR), *seen]
                for head, of in enumerate(np.arange(op.heads) // share):
                    parts = [k[:, of] @ asked[which][row, head] for k, _, which in seen]
                    scores = np.concatenate(parts) * op.scale
                    v = np.concatenate([v[:, of] for _, v, _ in seen])
                    if op.softcap:
                        scores = op.softcap * np.tanh(scores / op.softcap)
                    if op.slopes is not None:
                        keys = np.arange(first, last + 1, dtype=np.int32)
                        scores = scores + op.slopes.biases(head, keys, last, op.scale)
                    if logits is not None:  # one more score, of a value that is zero
                        scores, v = np.append(scores, logits[head]), np.pad(v, ((0, 1), (0, 0)))
                    weights = np.exp(scores - scores.max())
                    out[row, head] = weights @ v / weights.sum()
        return out.reshape(len(q), -1)

    def _read(
        self, op: Attend, sequence: int, begin: int, end: int, batch: Batch, q: int | None = None
    ) -> list[tuple[DoubleArray, DoubleArray, int]]:
        """K and V, (positions, kv_heads, dim) each, of sinks and of the others; and which q meets
        them, unless it is this one."""
        found, positions = [], np.arange(begin, end, dtype=np.int32)
        for group, which, sinks in self._parts(op.group, positions):
            slots = self._slots(group, sequence, positions[which], batch)
            k, v = (each[op.layer, slots].astype(np.float64) for each in self.kv[group])
            found.append((k, v, int(sinks) if q is None else q))
        return found

    def _head(self, op: Head, x: FloatArray, batch: Batch) -> StepOutput:
        x = x[batch.output_rows]
        logits = self._round(x) @ self._weights[op.weight.name].T
        if op.bias is not None:
            logits = logits + self._weights[op.bias.name]
        logits = logits * np.float32(op.scale)
        if op.softcap:
            logits = np.float32(op.softcap) * np.tanh(logits / np.float32(op.softcap))
        of_tokens = logits[:, : op.tokens]
        peak = of_tokens.max(axis=1, keepdims=True)
        lse = peak[:, 0] + np.log(np.exp((of_tokens - peak).astype(np.float64)).sum(axis=1))
        edited = edit_logits(logits, batch)[:, : op.tokens]
        order = np.argsort(-edited, axis=1, kind="stable")[:, : batch.top_k]
        is_hidden = batch.wants == Want.HIDDEN
        draws = np.flatnonzero(batch.wants == Want.DRAW).tolist()
        drawn = np.array([_drawn(edited[i], batch, i) for i in draws], np.int32)
        return StepOutput(
            argmax=np.where(is_hidden, -1, edited.argmax(axis=1)).astype(np.int32),
            log_sum_exp=np.where(is_hidden, np.nan, lse).astype(np.float32),
            top_ids=order.astype(np.int32),
            top_logits=np.take_along_axis(edited, order, axis=1),
            logits=logits[batch.wants == Want.LOGITS],
            hidden=x[is_hidden],
            drawn=drawn,
            drawn_logits=logits[draws, drawn],
        )


def edit_logits(logits: FloatArray, batch: Batch) -> FloatArray:
    """Apply each output's mask and sparse edits: scale (repetition), then add."""
    logits = logits.copy()
    if batch.edits is not None and batch.edit_starts is not None:
        for i, (begin, end) in enumerate(
            zip(batch.edit_starts, batch.edit_starts[1:], strict=False)
        ):
            edits = batch.edits[begin:end]
            x = logits[i, edits["token"]]
            x = np.where(x > 0, x / edits["scale"], x * edits["scale"])
            logits[i, edits["token"]] = x + edits["add"]
    if batch.masks is not None:
        bits = np.unpackbits(batch.masks.view(np.uint8), axis=1, bitorder="little")
        logits[bits[:, : logits.shape[1]] == 0] = -np.inf
    return logits


def _drawn(logits: FloatArray, batch: Batch, output: int) -> int:
    """The first token whose running probability exceeds the output's number."""
    assert batch.temperatures is not None
    assert batch.uniforms is not None
    difference = logits.astype(np.float64) - logits.max()
    running = np.cumsum(np.exp(difference / batch.temperatures[output]))
    return int(np.searchsorted(running, batch.uniforms[output] * running[-1], side="right"))


def _identity(x: FloatArray) -> FloatArray:
    return x
