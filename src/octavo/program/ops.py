"""Op records: what a model does, as a flat list over named values. Data only; interpreters give it
meaning.

A `Value` is an array of rows, one row per token of the ragged batch, in single assignment. Weights
are named, never held. Knows nothing of memory, threads or file formats. Model files write the
readable ops (through `builder.ProgramBuilder`); `fuse.lower` and `fuse.fuse` rewrite them into what
the native interpreter runs; `reference` and `cost` read the readable ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

RopeStyle = Literal["interleaved", "half"]  # pairs (2i, 2i+1) | (i, i + rotary_dim/2)
NormKind = Literal["rms", "layer"]
ActivationKind = Literal["silu", "gelu", "gelu_tanh", "relu"]
WeightKind = Literal["matrix", "vector"]


@dataclass(frozen=True, slots=True)
class Value:
    """Rows of `width` float32, or the packed activations that a matmul reads."""

    id: int
    width: int
    packed: bool = False


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """A weight that the program expects: `shape` is (rows, cols) of a matrix, (n,) of a vector."""

    name: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> WeightKind:
        return "matrix" if len(self.shape) == 2 else "vector"


@dataclass(frozen=True, slots=True)
class KVSpec:
    """What one layer of a layer group stores for a token. Layers of a group share block tables."""

    kv_heads: int
    k_dim: int
    v_dim: int
    window: int = 0  # tokens a row sees, itself included; 0 = all


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Radians per position of each rotated pair; cos and sin are multiplied by the amplitude."""

    frequencies: tuple[float, ...]  # (rotary_dim / 2,)
    amplitude: float = 1.0


# ---- readable ops


@dataclass(frozen=True, slots=True)
class Embed:
    """out[r] = table[token[r]] (+ positions[position[r] + offset], learned ones)"""

    table: WeightSpec  # (vocab, width)
    out: Value
    positions: WeightSpec | None = None  # (positions, width)
    offset: int = 0

    @property
    def matrices(self) -> tuple[WeightSpec | None, ...]:
        return self.table, self.positions


@dataclass(frozen=True, slots=True)
class Norm:
    """out = x / sqrt(mean(x^2) + eps) (* weight) (+ bias), each head by itself: RMSNorm (Zhang &
    Sennrich 2019). LayerNorm (Ba et al. 2016) takes the mean off x first."""

    x: Value
    kind: NormKind
    weight: WeightSpec | None  # (width / heads,)
    bias: WeightSpec | None
    eps: float
    out: Value
    heads: int = 1

    @property
    def vectors(self) -> tuple[WeightSpec | None, ...]:
        return self.weight, self.bias

    @property
    def head_dim(self) -> int:
        return self.x.width // self.heads


@dataclass(frozen=True, slots=True)
class Linear:
    """out = (x @ weight.T (+ bias)) * scale (+ add)"""

    x: Value
    weight: WeightSpec
    bias: WeightSpec | None
    add: Value | None
    out: Value
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotate the first dims of each head by the row's position   (Su et al. 2021)"""

    x: Value
    heads: int
    rope_style: RopeStyle
    out: Value
    rope_table: str = "default"  # of the program; as many dims are rotated as it has

    @property
    def head_dim(self) -> int:
        return self.x.width // self.heads


@dataclass(frozen=True, slots=True)
class StoreKV:
    """Write each row's K and V into its slot of the pages of `layer` (index inside `group`)."""

    k: Value
    v: Value
    group: int
    layer: int


@dataclass(frozen=True, slots=True)
class Attend:
    """Causal attention of each row over its sequence's pages, K and V read back as stored.

    A `softcap` bounds the scaled scores s before the mask: softcap * tanh(s / softcap)   (Gemma 2,
    Google 2024); 0 = none."""

    q: Value
    heads: int
    group: int
    layer: int
    scale: float
    out: Value  # (rows, heads * v_dim)
    softcap: float = 0.0


@dataclass(frozen=True, slots=True)
class Activate:
    """out = activation(x)"""

    x: Value
    activation: ActivationKind
    out: Value


@dataclass(frozen=True, slots=True)
class GatedActivation:
    """out = activation(gate) * up   (Shazeer 2020): SwiGLU with silu, GeGLU with gelu"""

    gate: Value
    up: Value
    activation: ActivationKind
    out: Value


@dataclass(frozen=True, slots=True)
class Add:
    """out = x + y, where no Linear does it with its `add`"""

    x: Value
    y: Value
    out: Value


@dataclass(frozen=True, slots=True)
class Scale:
    """out = x * scale, as models do to their embeddings"""

    x: Value
    scale: float
    out: Value


@dataclass(frozen=True, slots=True)
class ScaleByPosition:
    """out = x * (1 + beta * log(1 + floor(position / original))): for queries beyond the context
    that the model was first trained on   (Llama 4, Meta 2025)"""

    x: Value
    beta: float
    original: int
    out: Value


@dataclass(frozen=True, slots=True)
class Head:
    """Computes logits = softcap((norm(x) @ weight.T (+ bias)) * scale) for the output rows, and of
    them what each wants (argmax, top-k, …). softcap(s) = cap * tanh(s / cap); a cap of 0 is none.

    The first `tokens` rows of the weight are tokens; what fills it up is none. Whoever wants logits
    sees those of all rows; the rest (argmax, top-k, log-sum-exp, so every log-probability, and what
    is drawn) is over tokens alone, as if the weight ended there.
    """

    x: Value
    norm_kind: NormKind | None  # fuse sets what the norm is; None: x is normed already
    norm: WeightSpec | None
    norm_bias: WeightSpec | None
    eps: float
    weight: WeightSpec
    bias: WeightSpec | None
    scale: float
    softcap: float
    tokens: int

    @property
    def vectors(self) -> tuple[WeightSpec | None, ...]:
        return self.norm, self.norm_bias, self.bias


# ---- lowered and fused ops, written by fuse.py only


@dataclass(frozen=True, slots=True)
class Quantize:
    """Pack rows into the activations that `weight`'s kernel reads. The kind follows from its
    format."""

    x: Value
    consumer: WeightSpec
    out: Value


@dataclass(frozen=True, slots=True)
class NormQuantize:
    """Does Norm, then Quantize, in one op."""

    x: Value
    kind: NormKind
    weight: WeightSpec | None
    bias: WeightSpec | None
    eps: float
    consumer: WeightSpec
    out: Value

    @property
    def vectors(self) -> tuple[WeightSpec | None, ...]:
        return self.weight, self.bias


@dataclass(frozen=True, slots=True)
class Matmul:
    """Computes a Linear on packed activations."""

    x: Value
    weight: WeightSpec
    bias: WeightSpec | None
    add: Value | None
    out: Value
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class QKV:
    """Three Matmuls of one x, RMSNorm and Rope of each head of q and k where they have them,
    StoreKV: one head a unit of work."""

    x: Value
    weights: tuple[WeightSpec, WeightSpec, WeightSpec]
    biases: tuple[WeightSpec | None, WeightSpec | None, WeightSpec | None]
    norms: tuple[WeightSpec | None, WeightSpec | None]  # (head_dim,) of q's and of k's heads
    eps: float
    heads: int
    head_dim: int
    rope_table: str | None  # None: no head is turned
    rope_style: RopeStyle | None
    group: int
    layer: int
    out: Value  # what attention reads as q

    @property
    def vectors(self) -> tuple[WeightSpec | None, ...]:
        return *self.biases, *self.norms


@dataclass(frozen=True, slots=True)
class AttendQuantize:
    """Does Attend, then Quantize, in one op."""

    q: Value
    heads: int
    group: int
    layer: int
    scale: float
    consumer: WeightSpec
    out: Value
    softcap: float = 0.0


@dataclass(frozen=True, slots=True)
class GateUp:
    """Two Matmuls of one x, GatedActivation, Quantize."""

    x: Value
    weights: tuple[WeightSpec, WeightSpec]  # of gate and of up
    activation: ActivationKind
    consumer: WeightSpec
    out: Value


RowwiseOp = Norm | Rope | Activate | GatedActivation | Add | Scale | ScaleByPosition
ReadableOp = Embed | RowwiseOp | Linear | StoreKV | Attend | Head
FusedOp = Quantize | NormQuantize | Matmul | QKV | AttendQuantize | GateUp
Op = ReadableOp | FusedOp


@dataclass(frozen=True, slots=True)
class Program:
    """A whole forward. Interpreters make cos and sin by position from the rope tables."""

    ops: tuple[Op, ...]
    groups: tuple[KVSpec, ...]
    layers_of_group: tuple[int, ...]
    vocab_size: int  # tokens
    logits_width: int  # rows of the head's weight: tokens, and what fills it up
    hidden_size: int
    rope_tables: Mapping[str, RopeTable]  # by name

    def rotary_dim(self, rope_table: str) -> int:
        """Dims of a head that the table rotates."""
        return 2 * len(self.rope_tables[rope_table].frequencies)

    def weights(self) -> dict[str, WeightSpec]:
        """Every weight the ops name, once each, in order of first use."""
        found: dict[str, WeightSpec] = {}
        for op in self.ops:
            for name in op.__dataclass_fields__:
                field = getattr(op, name)
                for spec in field if isinstance(field, tuple) else (field,):
                    if isinstance(spec, WeightSpec):
                        found.setdefault(spec.name, spec)
        return found


def inputs(op: Op) -> list[Value]:
    """The values an op reads."""
    named = ((f.name, getattr(op, f.name)) for f in fields(op))
    return [value for name, value in named if isinstance(value, Value) and name != "out"]


def output(op: Op) -> Value | None:
    """The value an op writes; None if what it makes leaves the program or goes to the pages."""
    return getattr(op, "out", None)
