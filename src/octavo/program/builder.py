"""ProgramBuilder: the words a model file is written in. Checks widths as it goes; makes no
decisions.

Comes in: calls in the order of the paper. Goes out: a `Program` of readable ops. Knows nothing of
weights' contents, batches or kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from octavo.program.ops import (
    Activate,
    ActivationKind,
    Add,
    Attend,
    Clamp,
    Embed,
    Experts,
    GatedActivation,
    GateKind,
    Head,
    HeadLinear,
    Join,
    KVSpec,
    Linear,
    Norm,
    NormKind,
    ReadableOp,
    Rope,
    RopeStyle,
    RopeTable,
    Route,
    RouteScore,
    Scale,
    ScaleByPosition,
    Slice,
    StoreKV,
    Value,
    WeightSpec,
)
from octavo.program.program import Program
from octavo.program.slopes import Slopes
from octavo.program.widths import check_experts, check_norm, check_route


class ProgramBuilder:
    def __init__(self, *, rope_frequencies: Sequence[float] = ()) -> None:
        """`rope_frequencies` are the rope table "default", if there are any."""
        self._ops: list[ReadableOp] = []
        self._num_values = 0
        self._groups: list[KVSpec] = []
        self._layers: list[int] = []
        self._rope_tables: dict[str, RopeTable] = {}
        if rope_frequencies:
            self.rope_table("default", rope_frequencies)

    def kv_group(self, spec: KVSpec) -> int:
        """Open a layer group; its layers are counted as `attention` names it."""
        self._groups.append(spec)
        self._layers.append(0)
        return len(self._groups) - 1

    def kv_groups(self, spec: KVSpec, windows: Sequence[int]) -> list[int]:
        """Open a layer group for each window that layers have, 0 first. Return each layer's."""
        opened = {w: self.kv_group(replace(spec, window=w)) for w in sorted({*windows})}
        return [opened[window] for window in windows]

    def rope_table(self, name: str, frequencies: Sequence[float], amplitude: float = 1.0) -> None:
        """Add a table that `rope` may name: radians per position of each rotated pair, and what cos
        and sin are multiplied by."""
        assert name not in self._rope_tables
        self._rope_tables[name] = RopeTable(tuple(frequencies), amplitude)

    def embed(
        self, table: WeightSpec | None, *, positions: WeightSpec | None = None, offset: int = 0
    ) -> Value:
        """Rows of tokens plus those of their positions, the first of which is row `offset`."""
        (width,) = {spec.shape[1] for spec in (table, positions) if spec is not None}
        assert positions is None or offset < positions.shape[0]
        out = self._value(width)
        self._ops.append(Embed(table, out, positions, offset))
        return out

    def rms_norm(self, x: Value, weight: WeightSpec | None, eps: float, *, heads: int = 1) -> Value:
        """Each of the row's heads normed by itself; one head is the whole row."""
        return self._norm(x, "rms", weight, None, eps, heads)

    def layer_norm(
        self, x: Value, weight: WeightSpec | None, bias: WeightSpec | None, eps: float
    ) -> Value:
        return self._norm(x, "layer", weight, bias, eps, 1)

    def linear(
        self, x: Value, weight: WeightSpec, *, bias: WeightSpec | None = None, scale: float = 1.0,
        add: Value | None = None,
    ) -> Value:  # fmt: skip
        rows, cols = weight.shape
        assert cols == x.width, f"{weight.name} {weight.shape} meets rows of {x.width}"
        assert bias is None or bias.shape == (rows,)
        assert add is None or add.width == rows
        out = self._value(rows)
        self._ops.append(Linear(x, weight, bias, add, out, scale))
        return out

    def head_linear(self, x: Value, weight: WeightSpec, *, heads: int) -> Value:
        """Each head of x through a matrix of its own; the weight has the rows of all heads'."""
        assert heads * weight.shape[1] == x.width
        assert weight.shape[0] % heads == 0
        out = self._value(weight.shape[0])
        self._ops.append(HeadLinear(x, weight, heads, out))
        return out

    def join(self, x: Value, y: Value, *, heads: int) -> Value:
        """Behind each head of x that of y."""
        assert x.width % heads == y.width % heads == 0
        out = self._value(x.width + y.width)
        self._ops.append(Join(x, y, heads, out))
        return out

    def rope(self, x: Value, *, heads: int, style: RopeStyle, table: str = "default") -> Value:
        assert x.width % heads == 0
        assert 2 * len(self._rope_tables[table].frequencies) <= x.width // heads
        out = self._value(x.width)
        self._ops.append(Rope(x, heads, style, out, table))
        return out

    def attention(
        self,
        q: Value,
        k: Value | None = None,
        v: Value | None = None,
        *,
        heads: int,
        group: int,
        scale: float,
        softcap: float = 0.0,
        sink_logits: WeightSpec | None = None,
        layer: int | None = None,
        slopes: Slopes | None = None,
    ) -> Value:
        """Store k and v in the pages of the group's next layer, then attend through the block
        table; no v where the group's is in k. Without both: attend to what an earlier op stored of
        the group's `layer`."""
        spec = self._groups[group]
        assert q.width == heads * spec.k_dim
        assert heads % spec.kv_heads == 0
        assert sink_logits is None or sink_logits.shape == (heads,)
        assert slopes is None or len(slopes.of_heads) == heads
        if k is None:
            assert v is None
            assert layer is not None
            assert 0 <= layer < self._layers[group]
        else:
            assert layer is None
            assert k.width == spec.kv_heads * spec.k_dim
            assert (v is None) == spec.v_in_k
            assert v is None or v.width == spec.kv_heads * spec.v_dim
            layer = self._layers[group]
            self._layers[group] += 1
            self._ops.append(StoreKV(k, v, group, layer))
        out = self._value(heads * spec.v_dim)
        self._ops.append(Attend(q, heads, group, layer, scale, out, softcap, sink_logits, slopes))
        return out

    def activate(self, x: Value, activation: ActivationKind) -> Value:
        out = self._value(x.width)
        self._ops.append(Activate(x, activation, out))
        return out

    def gated(self, gate: Value, up: Value, activation: GateKind) -> Value:
        assert gate.width == up.width
        out = self._value(gate.width)
        self._ops.append(GatedActivation(gate, up, activation, out))
        return out

    def add(self, x: Value, y: Value) -> Value:
        assert x.width == y.width
        out = self._value(x.width)
        self._ops.append(Add(x, y, out))
        return out

    def scale(self, x: Value, scale: float = 1.0, *, factor: WeightSpec | None = None) -> Value:
        """x times a number, a learned one, or both."""
        assert factor is None or factor.shape == (1,)
        out = self._value(x.width)
        self._ops.append(Scale(x, scale, out, factor))
        return out

    def slice(self, x: Value, begin: int, width: int) -> Value:
        """Columns of x."""
        assert 0 <= begin < begin + width <= x.width
        out = self._value(width)
        self._ops.append(Slice(x, begin, out))
        return out

    def clamp(self, x: Value, limit: float) -> Value:
        assert limit > 0
        out = self._value(x.width)
        self._ops.append(Clamp(x, limit, out))
        return out

    def scale_by_position(self, x: Value, beta: float, original: int) -> Value:
        assert original >= 1
        out = self._value(x.width)
        self._ops.append(ScaleByPosition(x, beta, original, out))
        return out

    def route(
        self,
        x: Value,
        *,
        used: int,
        score: RouteScore,
        renormalise: bool = False,
        scale: float = 1.0,
        choice_bias: WeightSpec | None = None,
        groups: int = 1,
        groups_used: int = 1,
    ) -> Value:
        """The experts of each row, from their logits, and the factor of each: what `experts`
        reads."""
        out = self._value(2 * used)
        op = Route(x, score, used, renormalise, scale, choice_bias, groups, groups_used, out)
        check_route(op)
        self._ops.append(op)
        return out

    def experts(
        self,
        x: Value,
        route: Value,
        gate: WeightSpec,
        up: WeightSpec,
        down: WeightSpec,
        *,
        experts: int,
        activation: GateKind,
        scale: float = 1.0,
        add: Value | None = None,
        biases: tuple[WeightSpec | None, WeightSpec | None, WeightSpec | None] = (None, None, None),
    ) -> Value:
        """The sum of what each row's experts make of it. Matrices, and biases of gate, up and down,
        have the rows of all experts."""
        out = self._value(down.shape[0] // experts)
        op = Experts(x, route, (gate, up, down), experts, activation, add, out, scale, biases)
        check_experts(op)
        self._ops.append(op)
        return out

    def logits(
        self,
        x: Value,
        weight: WeightSpec,
        *,
        bias: WeightSpec | None = None,
        scale: float = 1.0,
        softcap: float = 0.0,
        tokens: int | None = None,
    ) -> Program:
        """The head over the rows that ask for it; closes the program. `tokens`: the rows of the
        weight that are tokens, if not all are."""
        rows = weight.shape[0]
        assert weight.shape[1] == x.width
        assert bias is None or bias.shape == (rows,)
        tokens = rows if tokens is None else tokens
        assert 0 < tokens <= rows
        head = Head(x, None, None, None, 0.0, weight, bias, scale, softcap, tokens)
        self._ops.append(head)
        return Program(
            ops=tuple(self._ops),
            groups=tuple(self._groups),
            layers_of_group=tuple(self._layers),
            vocab_size=tokens,
            logits_width=rows,
            hidden_size=x.width,
            rope_tables=self._rope_tables,
        )

    def _norm(
        self,
        x: Value,
        kind: NormKind,
        weight: WeightSpec | None,
        bias: WeightSpec | None,
        eps: float,
        heads: int,
    ) -> Value:
        op = Norm(x, kind, weight, bias, eps, self._value(x.width), heads)
        check_norm(op)
        self._ops.append(op)
        return op.out

    def _value(self, width: int) -> Value:
        self._num_values += 1
        return Value(self._num_values - 1, width)
