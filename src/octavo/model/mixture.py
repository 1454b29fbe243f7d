"""A mixture of experts: MLPs of which a router chooses a few for each row   (Shazeer et al. 2017).

Its numbers, checked once, when made, and its part of a layer's program. Knows no file: who reads
one names the key or field of what is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.errors import ModelFormatError
from octavo.kernels import native
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import GateKind, RouteScore, Value, WeightSpec

MOST_EXPERTS = native.MAX_EXPERTS
EXPERT_STEP = native.GROUP_COLUMNS  # kernels cut a stack of experts at whole groups only
ROUTER = "ffn_gate_inp"  # the part whose matrix makes the router's logits; always float32


@dataclass(frozen=True, slots=True)
class Mixture:
    """How many experts layers have, and how a row's are chosen and weighed."""

    experts: int
    used: int  # by each row
    ffn_size: int  # of one expert
    sparse: tuple[bool, ...]  # by layer, which have experts; the others have one MLP
    score: RouteScore = "softmax"
    renormalised: bool = False  # a row's factors are divided by their sum
    shared_ffn_size: int = 0  # of an MLP beside them that all rows pass through; 0: none
    activation: GateKind = "silu"
    biased: bool = False  # the router and the experts
    scale: float = 1.0  # multiplies a row's factors
    groups: int = 1  # that experts lie in; only those of the best `groups_used` are chosen from
    groups_used: int = 1

    def __post_init__(self) -> None:
        for name, value, most in (
            ("experts", self.experts, MOST_EXPERTS),
            ("experts that a row uses", self.used, self.experts),
        ):
            if not 1 <= value <= most:
                raise ModelFormatError(f"{value} {name}: expected 1 to {most}")
        if self.groups < 1 or self.experts % self.groups:
            raise ModelFormatError(f"{self.experts} experts in {self.groups} groups")
        reached = self.groups_used * (self.experts // self.groups)
        if not 1 <= self.groups_used <= self.groups or self.used > reached:
            raise ModelFormatError(
                f"{self.groups_used} groups of {self.groups} for {self.used} experts of a row"
            )
        if not 0 < self.scale < math.inf:
            raise ModelFormatError(f"factors of experts times {self.scale}: expected above 0")


def mixture(
    p: ProgramBuilder, cfg: Mixture, i: int, x: Value, *, scale: float = 1.0, add: Value
) -> Value:
    """The experts of layer `i`: add + scale * (the sum of what a row's make of x)."""

    def stack(part: str, rows: int, cols: int) -> WeightSpec:
        return WeightSpec(f"blk.{i}.ffn_{part}_exps.weight", (cfg.experts * rows, cols))

    def bias(part: str, rows: int) -> WeightSpec | None:
        return WeightSpec(f"blk.{i}.{part}.bias", (rows,)) if cfg.biased else None

    ffn, hidden = cfg.ffn_size, x.width
    router = WeightSpec(f"blk.{i}.{ROUTER}.weight", (cfg.experts, hidden))
    logits = p.linear(x, router, bias=bias(ROUTER, cfg.experts))
    route = p.route(
        logits, used=cfg.used, score=cfg.score, renormalise=cfg.renormalised, scale=cfg.scale,
        groups=cfg.groups, groups_used=cfg.groups_used,
    )  # fmt: skip
    return p.experts(
        x, route, stack("gate", ffn, hidden), stack("up", ffn, hidden), stack("down", hidden, ffn),
        experts=cfg.experts, activation=cfg.activation, scale=scale, add=add,
        biases=(
            bias("ffn_gate_exps", cfg.experts * ffn), bias("ffn_up_exps", cfg.experts * ffn),
            bias("ffn_down_exps", cfg.experts * hidden),
        ),
    )  # fmt: skip
