"""The cost interpreter: FLOPs and bytes of every op of a Program, without running it.

Comes in: a Program of readable ops, the bytes of its weights, the formats of K and V, and `Work`:
how many rows one sequence brings and how many tokens came before. Goes out: one OpCost for each op.
Knows nothing of kernels, caches above the pages, or time.

What is counted: a multiply-add is 2 FLOPs; exp, tanh, divide and square root are 1. A matrix, and
the K and V that rows see, are read once a forward: the least any machine can do. Of experts those
that rows meet, if all are as likely. Activations are float32, read and written once by each op.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from octavo.program.classes import CLASSES, OpClass, classify
from octavo.program.kv_bytes import PageFormats, pages_bytes
from octavo.program.ops import (
    Attend,
    Embed,
    Experts,
    Head,
    HeadLinear,
    Join,
    Linear,
    Route,
    Slice,
    StoreKV,
)
from octavo.program.program import Op, Program, inputs, weights_of
from octavo.program.row_ops import ROW_OPS

SOFTMAX_FLOPS = 3  # a score: minus the maximum, exp, sum
SOFTCAP_FLOPS = 3  # a score: divide, tanh, multiply
SLOPE_FLOPS = 2  # a score: multiply, add
FLOAT = 4  # bytes of an activation


@dataclass(frozen=True, slots=True)
class Work:
    """One forward over one sequence: `rows` tokens after `past` ones whose K and V are stored."""

    rows: int
    past: int = 0
    output_rows: int = 1  # rows that pass the head

    @property
    def length(self) -> int:
        """Tokens of the sequence when it is done."""
        return self.past + self.rows

    def scores(self, window: int) -> int:
        """Pairs (row, token it sees), a row seeing itself and what came before; window 0 = all."""
        if not window or self.length <= window:
            return (self.past + 1 + self.length) * self.rows // 2  # first and last row, averaged
        growing = max(0, window - self.past)  # rows that everything before them fits into
        return Work(growing, self.past).scores(0) + (self.rows - growing) * window

    def tokens_seen(self, window: int) -> int:
        """Different tokens that any row sees."""
        return self.length - (max(0, self.past + 1 - window) if window else 0)


@dataclass(frozen=True, slots=True)
class OpCost:
    """Bytes are of one forward; `kv` ones are those of pages."""

    op_class: OpClass
    flops: float = 0.0
    weight_bytes: float = 0.0
    kv_read_bytes: float = 0.0
    kv_write_bytes: float = 0.0
    activation_bytes: float = 0.0

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes + self.activation_bytes

    @property
    def memory_bytes(self) -> float:
        """Return the bytes that come from memory even if activations stay in caches."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes

    def __add__(self, other: OpCost) -> OpCost:
        return OpCost(
            self.op_class,
            self.flops + other.flops,
            self.weight_bytes + other.weight_bytes,
            self.kv_read_bytes + other.kv_read_bytes,
            self.kv_write_bytes + other.kv_write_bytes,
            self.activation_bytes + other.activation_bytes,
        )


def decode(context: int, *, cache: bool) -> Work:
    """Return the work of one new token that sees `context` tokens, itself included."""
    return Work(rows=1, past=context - 1) if cache else Work(rows=context)


def prefill(context: int) -> Work:
    """Return the work of a prompt of `context` tokens whose last row asks for the next token."""
    return Work(rows=context)


def uniform_weights(program: Program, bits: float) -> dict[str, float]:
    """Bytes of each weight where all have the same width; of tables in a file none are counted."""
    weights = {n: s.shape if s.kind != "table" else (0,) for n, s in program.weights().items()}
    return {name: prod(shape) * bits / 8 for name, shape in weights.items()}


def cost(
    program: Program,
    work: Work,
    *,
    weight_bytes: Mapping[str, float],
    formats: PageFormats,
) -> list[OpCost]:
    """Return one OpCost for each op, in the program's order."""
    classes = classify(program)
    counter = _Counter(program, work, weight_bytes, formats)
    return [counter.count(op, name) for op, name in zip(program.ops, classes, strict=True)]


def by_class(costs: Iterable[OpCost]) -> dict[OpClass, OpCost]:
    """Sums, every class present, in the order of CLASSES."""
    sums = {name: OpCost(name) for name in CLASSES}
    for each in costs:
        sums[each.op_class] += each
    return sums


@dataclass(frozen=True, slots=True)
class _Counter:
    program: Program
    work: Work
    weight_bytes: Mapping[str, float]
    formats: PageFormats

    def count(self, op: Op, name: OpClass) -> OpCost:
        rows = self.work.rows
        match op:
            case Embed():
                tables = [spec for spec in (op.table, op.positions) if spec is not None]
                row = sum(self.weight_bytes[spec.name] / spec.shape[0] for spec in tables)
                sums, moved = (len(tables) - 1) * op.out.width, _floats(rows, op.out.width)
                return OpCost(name, rows * sums, rows * row, activation_bytes=moved)
            case Slice():
                return OpCost(name, activation_bytes=_floats(rows, 2 * op.out.width))
            case Linear():
                return self._linear(op, name)
            case HeadLinear():
                flops, moved = 2.0 * op.weight.shape[1], _floats(rows, op.x.width + op.out.width)
                weight = self.weight_bytes[op.weight.name]
                return OpCost(name, rows * op.out.width * flops, weight, activation_bytes=moved)
            case Join():
                return OpCost(name, activation_bytes=_floats(rows, 2 * op.out.width))
            case StoreKV():
                written = self._kv_bytes(op.group, self.work.past, self.work.length)
                read = sum(value.width for value in inputs(op))
                return OpCost(name, 0.0, 0.0, 0.0, written, _floats(rows, read))
            case Attend():
                return self._attend(op, name)
            case Head():
                return self._head(op, name)
            case Route():
                return self._route(op, name)
            case Experts():
                return self._experts(op, name)
            case _ if type(op) in ROW_OPS:
                return self._row_op(op, name)
            case _:
                raise AssertionError(f"{type(op).__name__}: costs are those of readable programs")

    def _row_op(self, op: Op, name: OpClass) -> OpCost:
        row_op, values = ROW_OPS[type(op)], inputs(op)
        return OpCost(
            name,
            self.work.rows * row_op.flops(op, self.program),
            sum(self.weight_bytes[spec.name] for spec in row_op.vectors(op) if spec is not None),
            activation_bytes=_floats(self.work.rows, (len(values) + 1) * values[0].width),
        )

    def _kv_bytes(self, group: int, begin: int, end: int) -> float:
        """Bytes of K and V of tokens [begin, end) in one layer."""
        return pages_bytes(self.program.groups[group], self.formats, begin, end)

    def _linear(self, op: Linear, name: OpClass) -> OpCost:
        rows, (out, into) = self.work.rows, op.weight.shape
        extra = (op.bias is not None) + (op.scale != 1) + (op.add is not None)
        bias = 0.0 if op.bias is None else self.weight_bytes[op.bias.name]
        moved = _floats(rows, into + out + (0 if op.add is None else out))
        weight = self.weight_bytes[op.weight.name] + bias
        return OpCost(name, rows * out * (2 * into + extra), weight, activation_bytes=moved)

    def _attend(self, op: Attend, name: OpClass) -> OpCost:
        spec = self.program.groups[op.group]
        scores = self.work.scores(spec.most_seen) * op.heads
        end, seen = self.work.length, self.work.tokens_seen(spec.most_seen)
        extra = SOFTCAP_FLOPS * bool(op.softcap) + SLOPE_FLOPS * bool(op.slopes)
        moved = _floats(self.work.rows, sum(v.width for v in (*inputs(op), op.out)))
        return OpCost(
            name,
            scores * (2 * spec.k_dim + 2 * spec.v_dim + SOFTMAX_FLOPS + extra),
            0.0 if op.sink_logits is None else self.weight_bytes[op.sink_logits.name],
            kv_read_bytes=self._kv_bytes(op.group, end - seen, end),
            activation_bytes=moved,
        )

    def _route(self, op: Route, name: OpClass) -> OpCost:
        bias = 0.0 if op.choice_bias is None else self.weight_bytes[op.choice_bias.name]
        flops = self.work.rows * op.experts * (SOFTMAX_FLOPS + op.used)  # a comparison each
        moved = _floats(self.work.rows, op.experts + op.out.width)
        return OpCost(name, flops, bias, activation_bytes=moved)

    def _experts(self, op: Experts, name: OpClass) -> OpCost:
        rows, (into, out) = self.work.rows, (op.x.width, op.out.width)
        read = experts_read(op.experts, op.used, rows) / op.experts
        expert = op.ffn_size * (4.0 * into + 4 + 2 * out) + 2 * out
        biases = [spec for spec in op.biases if spec is not None]
        expert += sum(spec.shape[0] for spec in biases) / op.experts
        extra = (op.scale != 1) + (op.add is not None)
        return OpCost(
            name,
            rows * (op.used * expert + extra * out),
            read * sum(self.weight_bytes[spec.name] for spec in weights_of(op)),
            activation_bytes=_floats(rows, into + out + (0 if op.add is None else out)),
        )

    def _head(self, op: Head, name: OpClass) -> OpCost:
        outputs, (vocab, width) = self.work.output_rows, op.weight.shape
        moved = _floats(outputs, width + vocab)
        read = (op.weight, op.bias) if outputs else ()
        weight = sum(self.weight_bytes[spec.name] for spec in read if spec is not None)
        extra = (op.bias is not None) + (op.scale != 1) + SOFTCAP_FLOPS * (op.softcap > 0)
        flops = outputs * vocab * (2.0 * width + extra)
        return OpCost(name, flops, weight, activation_bytes=moved)


def experts_read(experts: int, used: int, rows: int) -> float:
    """Return how many different experts rows meet, of which each meets `used` at random."""
    return experts * (1 - (1 - used / experts) ** rows)


def expert_bytes(
    program: Program, weight_bytes: Mapping[str, float]
) -> dict[tuple[int, int], float]:
    """Return the bytes of all experts, by how many a layer has and how many a row meets."""
    found: dict[tuple[int, int], float] = {}
    for op in program.ops:
        if isinstance(op, Experts):
            key = op.experts, op.used
            found[key] = found.get(key, 0.0) + sum(weight_bytes[s.name] for s in weights_of(op))
    return found


def unread_bytes(of_experts: Mapping[tuple[int, int], float], rows: int) -> float:
    """Return the bytes of experts that so many rows do not meet."""
    return sum(
        nbytes * (1 - experts_read(experts, used, rows) / experts)
        for (experts, used), nbytes in of_experts.items()
    )


def _floats(rows: int, width: int) -> float:
    return float(rows * width * FLOAT)
