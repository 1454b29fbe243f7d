"""Op records that the native interpreter runs in place of readable ones. Written by `fuse` alone.

`Quantize` and `Matmul` are what any readable program is lowered to; the others are several ops in
one. Data only.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.program.ops import GateKind, NormKind, RopeStyle, Value, WeightSpec
from octavo.program.slopes import Slopes


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
    sink_logits: WeightSpec | None = None
    slopes: Slopes | None = None
    far_q: Value | None = None


@dataclass(frozen=True, slots=True)
class GateUp:
    """Two Matmuls of one x, GatedActivation, Quantize."""

    x: Value
    weights: tuple[WeightSpec, WeightSpec]  # of gate and of up
    activation: GateKind
    consumer: WeightSpec
    out: Value


FusedOp = Quantize | NormQuantize | Matmul | QKV | AttendQuantize | GateUp
