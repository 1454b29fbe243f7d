"""RowKernels.route in numpy, operation by operation: what each ISA level must return, bit for
bit."""

from __future__ import annotations

import numpy as np

from tests.kernels.exact import F32, Floats, exp2, tree
from tests.kernels.rows_twin import LOG2E, lanes_of


def softmax(x: Floats, fused: bool) -> Floats:
    with np.errstate(all="ignore"):
        largest = F32(np.fmax.reduce(x, initial=-np.inf))
        e = exp2(np.minimum((x - largest) * LOG2E, F32(127)), fused)
        total = np.zeros(16, F32)
        for v in lanes_of(e):
            total = total + v
        shares: Floats = e / tree(total)
        return shares


def sigmoid(x: Floats, fused: bool) -> Floats:
    with np.errstate(all="ignore"):
        e = exp2(np.minimum(-np.abs(x) * LOG2E, F32(127)), fused)
        shares: Floats = np.where(x < 0, e, F32(1)) / (F32(1) + e)
        return shares


def best(values: Floats, count: int) -> list[int]:
    """The places of the greatest, best first, ties to the lowest."""
    return [int(i) for i in np.argsort(-values, kind="stable")[:count]]


def route(
    isa: str,
    logits: Floats,
    choice_bias: Floats | None,
    used: int,
    score: str,
    renormalise: bool,
    scale: float,
    groups: int,
    groups_used: int,
) -> Floats:
    fused = isa != "base"
    scores = logits
    if score != "softmax_of_chosen":
        scores = softmax(logits, fused) if score == "softmax" else sigmoid(logits, fused)
    with np.errstate(all="ignore"):
        choosing = scores if choice_bias is None else scores + choice_bias
        choosing = np.where(np.isnan(choosing), F32(-np.inf), choosing)
        if groups > 1:
            by_group = choosing.reshape(groups, -1)
            ordered = -np.sort(-by_group, axis=1)
            good = ordered[:, 0] if choice_bias is None else ordered[:, 0] + ordered[:, 1]
            good = np.where(np.isnan(good), F32(-np.inf), good)
            left = np.full_like(by_group, -np.inf)
            for group in best(good, groups_used):
                left[group] = by_group[group]
            choosing = left.reshape(-1)
        chosen = best(choosing, used)
        factors = scores[chosen]
        if score == "softmax_of_chosen":
            factors = softmax(factors, fused)
        total = F32(1)
        if renormalise:
            total = factors[0]
            for factor in factors[1:]:
                total = total + factor
            total = total + F32(1e-20)
        return np.concatenate([np.array(chosen, F32), factors / total * F32(scale)])
