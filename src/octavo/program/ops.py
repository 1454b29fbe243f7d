"""The readable ops: records of what a model does over named values. Data only; interpreters give
them meaning.

A `Value` is an array of rows, one row per token of the ragged batch, in single assignment. Weights
are named, never held. Knows nothing of memory, threads or file formats. Model files write these
ops (through `builder.ProgramBuilder`); `reference` and `cost` read them; `fuse` rewrites them into
`fused_ops`, which the native interpreter runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from octavo.program.head_ops import HeadLinear as HeadLinear
from octavo.program.head_ops import HeadOp as HeadOp
from octavo.program.head_ops import Join as Join
from octavo.program.slopes import Slopes
from octavo.program.values import KVSpec as KVSpec
from octavo.program.values import RopeTable as RopeTable
from octavo.program.values import Value as Value
from octavo.program.values import WeightSpec as WeightSpec

RopeStyle = Literal["interleaved", "half"]  # pairs (2i, 2i+1) | (i, i + rotary_dim/2)
NormKind = Literal["rms", "layer"]
ActivationKind = Literal["silu", "gelu", "gelu_tanh", "relu"]
GateKind = Literal[ActivationKind, "clamped_glu"]  # the last has no form without a gate
RouteScore = Literal["softmax", "sigmoid", "softmax_of_chosen"]  # of experts' logits


@dataclass(frozen=True, slots=True)
class Embed:
    """out[r] = table[token[r]] (+ positions[position[r] + offset], learned ones), or these alone"""

    table: WeightSpec | None  # (vocab, width)
    out: Value
    positions: WeightSpec | None = None  # (positions, width)
    offset: int = 0

    @property
    def matrices(self) -> tuple[WeightSpec | None, ...]:
        return None if self.in_file else self.table, self.positions

    @property
    def in_file(self) -> WeightSpec | None:
        """Return the table if its rows are read from the file."""
        return self.table if self.table is not None and self.table.kind == "table" else None


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
    v: Value | None  # None: it is in K
    group: int
    layer: int


@dataclass(frozen=True, slots=True)
class Attend:
    """Causal attention of each row over its sequence's pages, K and V read back as stored. Several
    may read what one StoreKV wrote.

    A `softcap` bounds the scaled scores s before the mask: softcap * tanh(s / softcap)   (Gemma 2,
    Google 2024); 0 = none. A head's sink logit is in the softmax's denominator as one more score,
    of a token without a value   (OpenAI 2025). Slopes raise the scores that softcap has left.
    Rows that are far from the group's beginning, which is out of their window, meet it with
    `far_q`: attention sinks   (Xiao et al. 2023)."""

    q: Value
    heads: int
    group: int
    layer: int
    scale: float
    out: Value  # (rows, heads * v_dim)
    softcap: float = 0.0
    sink_logits: WeightSpec | None = None  # (heads,)
    slopes: Slopes | None = None
    far_q: Value | None = None  # as wide as q, where the group has a beginning


@dataclass(frozen=True, slots=True)
class Activate:
    """out = activation(x)"""

    x: Value
    activation: ActivationKind
    out: Value


@dataclass(frozen=True, slots=True)
class GatedActivation:
    """out = activation(gate) * up   (Shazeer 2020): SwiGLU with silu, GeGLU with gelu.

    Clamped_glu: gate * sigmoid(1.702 * gate) * (up + 1), gate at most 7, up from -7 to 7   (OpenAI
    2025)."""

    gate: Value
    up: Value
    activation: GateKind
    out: Value


@dataclass(frozen=True, slots=True)
class Add:
    """out = x + y, where no Linear does it with its `add`"""

    x: Value
    y: Value
    out: Value


@dataclass(frozen=True, slots=True)
class Scale:
    """out = x * scale (* factor), as models do to their embeddings; a factor is learned"""

    x: Value
    scale: float
    out: Value
    factor: WeightSpec | None = None  # (1,)

    @property
    def vectors(self) -> tuple[WeightSpec | None, ...]:
        return (self.factor,)


@dataclass(frozen=True, slots=True)
class Clamp:
    """out = x, kept between -limit and limit"""

    x: Value
    limit: float
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
class Slice:
    """out = the columns of x from `begin` on, as many as out has"""

    x: Value
    begin: int
    out: Value


@dataclass(frozen=True, slots=True)
class Route:
    """Chooses for each row the `used` experts of the highest score, ties to the lowest expert, and
    what their results are multiplied by: their scores, if `renormalise` divided by their sum, times
    `scale`   (Shazeer et al. 2017).

    A `choice_bias` is added to the scores that choose, not to those that multiply. Where experts
    lie in `groups`, the choice is among the `groups_used` best groups; a group is as good as its
    best expert, or with a choice bias as its best two together   (DeepSeek-V2, V3). Scores that are
    no number are chosen last, and factors of scores that are all 0 are 0, renormalised too."""

    x: Value  # (rows, experts) logits
    score: RouteScore
    used: int
    renormalise: bool
    scale: float
    choice_bias: WeightSpec | None  # (experts,)
    groups: int
    groups_used: int
    out: Value  # (rows, 2 * used): the experts' numbers, best first, then the factors

    @property
    def experts(self) -> int:
        return self.x.width


@dataclass(frozen=True, slots=True)
class Experts:
    """out = (sum over the row's experts of factor * expert(x)) * scale (+ add), from the best
    expert on, with expert(x) = (activation(x @ gate.T) * (x @ up.T)) @ down.T   (Shazeer 2020), or
    what GatedActivation makes of the two. Each product may have a bias added.

    A matrix has the rows of all experts, one expert after the other: whole panels of 16 of each,
    and of gate and up whole groups of 32."""

    x: Value
    route: Value  # as Route makes it
    weights: tuple[WeightSpec, WeightSpec, WeightSpec]  # of gate, up and down
    experts: int
    activation: GateKind
    add: Value | None
    out: Value
    scale: float = 1.0
    biases: tuple[WeightSpec | None, WeightSpec | None, WeightSpec | None] = (None, None, None)

    @property
    def used(self) -> int:
        """Experts that a row meets."""
        return self.route.width // 2

    @property
    def ffn_size(self) -> int:
        """Values between an expert's matrices."""
        return self.weights[2].shape[1]


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


RowwiseOp = Norm | Rope | Activate | GatedActivation | Add | Scale | Clamp | ScaleByPosition
ReadableOp = Embed | RowwiseOp | Slice | Linear | HeadOp | StoreKV | Attend | Route | Experts | Head
