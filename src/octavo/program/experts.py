"""Computes Route and Experts in numpy, for the reference interpreter.

Rows that meet an expert are multiplied together, as the native interpreter does; the sums go from a
row's best expert on. Knows nothing of batches or packing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from octavo.batch import FloatArray
from octavo.program.ops import Experts, Route
from octavo.program.row_ops import gated


def routed(op: Route, logits: FloatArray, choice_bias: FloatArray | None) -> FloatArray:
    """Return the numbers of each row's experts, best first, then their factors: (rows, 2 * used)
    from (rows, experts)."""
    scores = {"softmax": _softmax, "sigmoid": _sigmoid}.get(op.score, np.asarray)(logits)
    choosing = _or_least(scores if choice_bias is None else scores + choice_bias)
    if op.groups > 1:
        choosing = _of_best_groups(op, choosing)
    chosen = np.argsort(-choosing, axis=1, kind="stable")[:, : op.used]
    factors = np.take_along_axis(scores, chosen, axis=1)
    if op.score == "softmax_of_chosen":
        factors = _softmax(factors)
    if op.renormalise:
        # As in DeepSeek-V3, so that scores which are all 0 give 0; others lose it in rounding.
        factors = factors / (factors.sum(axis=1, keepdims=True) + np.float32(1e-20))
    return np.concatenate([chosen, factors * np.float32(op.scale)], axis=1).astype(np.float32)


def mixed(
    op: Experts,
    x: FloatArray,
    route: FloatArray,
    weights: Sequence[FloatArray],
    biases: Sequence[FloatArray | None],
    rounded: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Return the sum of what each row's experts make of it, (rows, out width). `rounded` is what
    becomes of rows before a matrix meets them."""
    gates, ups, downs = (each.reshape(op.experts, -1, each.shape[1]) for each in weights)
    gate_biases, up_biases, down_biases = (
        np.zeros((op.experts, 1), np.float32) if each is None else each.reshape(op.experts, -1)
        for each in biases
    )
    chosen, factors = route[:, : op.used].astype(np.int64), route[:, op.used :]
    made = np.zeros((len(x), op.used, op.out.width), np.float32)
    for expert in range(op.experts):
        rows, ranks = np.nonzero(chosen == expert)
        read = rounded(x[rows])
        gate = read @ gates[expert].T + gate_biases[expert]
        hidden = gated(op.activation, gate, read @ ups[expert].T + up_biases[expert])
        made[rows, ranks] = rounded(hidden) @ downs[expert].T + down_biases[expert]
    out = np.zeros((len(x), op.out.width), np.float32)
    for rank in range(op.used):
        out += factors[:, rank, None] * made[:, rank]
    return out * np.float32(op.scale)


def _or_least(x: FloatArray) -> FloatArray:
    """What is no number is chosen last."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp((x - x.max(axis=1, keepdims=True)).astype(np.float64))
    shares: FloatArray = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _sigmoid(x: FloatArray) -> FloatArray:
    shares: FloatArray = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)
    return shares


def _of_best_groups(op: Route, choosing: FloatArray) -> FloatArray:
    """Leave experts of all but the best groups out: they get -inf."""
    by_group = choosing.reshape(len(choosing), op.groups, -1)
    best = -np.sort(-by_group, axis=2)[:, :, : 1 if op.choice_bias is None else 2].sum(axis=2)
    used = np.argsort(-_or_least(best), axis=1, kind="stable")[:, : op.groups_used]
    left = np.full_like(by_group, -np.inf)
    rows = np.arange(len(choosing))[:, None]
    left[rows, used] = by_group[rows, used]
    return left.reshape(choosing.shape)
