"""The row kernels in numpy, operation by operation: what each ISA level must return, bit for bit.

Functions are named as the bindings and return what those write. `isa` chooses only how a fused
multiply-add rounds: once, or twice on `base`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels.exact import F32, Floats, exp2, fma, natural_log, tanh, tree

LOG2E = F32(1.4426950408889634)
# phi.h: how far t steps, and the polynomial in it, highest power first.
PHI_STEP = F32(float.fromhex("0x1.666666p-2"))
_PHI = ("-0x1.dd3284p-6", "0x1.26a66p-3", "-0x1.05a2e4p-2", "0x1.457c8ap-3", "-0x1.77cc78p-6",
        "0x1.afda6p-4", "0x1.eaea66p-4", "0x1.1e6e7p-3", "0x1.1df1eap-3")  # fmt: skip
PHI = [F32(float.fromhex(c)) for c in _PHI]
TILE = 1024
BEST_WEIGHT = 2**30
Ints = NDArray[np.int32]
Summary = tuple[F32, F32, int, F32]  # maximum, sum of exp(x - maximum), best token, log-sum-exp


def lanes_of(x: Floats, fill: float = 0.0) -> Floats:
    """(vectors, 16), the last vector filled up."""
    padded = np.full(-(-x.size // 16) * 16, fill, F32)
    padded[: x.size] = x
    return padded.reshape(-1, 16)


def norm(
    isa: str, x: Floats, weight: Floats | None, bias: Floats | None, eps: float, kind: int = 0
) -> Floats:
    fused, n = isa != "base", F32(x.size)
    with np.errstate(all="ignore"):
        if kind == 1:
            total = np.zeros(16, F32)
            for v in lanes_of(x):
                total = total + v
            x = x - tree(total) / n
        squares = np.zeros(16, F32)
        for v in lanes_of(x):
            squares = fma(v, v, squares, fused)
        x = x * (F32(1) / np.sqrt(tree(squares) / n + F32(eps)))
        if weight is not None and bias is not None:
            return fma(x, weight, bias, fused)
        x = x if weight is None else x * weight
        return x if bias is None else x + bias


def rope(isa: str, x: Floats, cos: Floats, sin: Floats, style: int) -> Floats:
    fused, out, half = isa != "base", x.copy(), cos.size
    first, second = slice(0, half), slice(half, 2 * half)
    if style == 0:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    with np.errstate(all="ignore"):
        a, b = x[:, first], x[:, second]
        out[:, first] = fma(a, cos, -(b * sin), fused)
        out[:, second] = fma(b, cos, a * sin, fused)
    return out


def phi(x: Floats, fused: bool) -> Floats:
    """phi of phi.h: exp(-a^2 / 2) * t * p(t) of a = |x|, or 1 less that."""
    with np.errstate(all="ignore"):
        a = np.where(x < 0, F32(0) - x, x)
        t = F32(1) / fma(a, PHI_STEP, F32(1), fused)
        p = np.full_like(x, PHI[0])
        for c in PHI[1:]:
            p = fma(p, t, c, fused)
        below = exp2((a * a) * (LOG2E / F32(-2)), fused) * (t * p)
        return np.where(x < 0, below, F32(1) - below)


def activated(isa: str, x: Floats, activation: int) -> Floats:
    """x * phi(x), x or 0, or x * sigmoid(t); t is x, or that of gelu by tanh."""
    kind, t, fused = native.ACTIVATIONS[activation], x, isa != "base"
    with np.errstate(all="ignore"):
        if kind == "relu":
            return np.where(x < 0, F32(0), x)
        if kind == "gelu":
            return x * phi(x, fused)
        if kind == "gelu_tanh":
            low, high = float.fromhex("0x1.2444f2p-4"), float.fromhex("0x1.988454p+0")
            t = x * fma(x * x, F32(low), F32(high), fused)
        return times_sigmoid(x, t, fused)


def times_sigmoid(x: Floats, t: Floats, fused: bool) -> Floats:
    negative = t < 0
    e = exp2(np.where(negative, -t, t) * -LOG2E, fused)
    share: Floats = np.where(negative, e, F32(1)) / (F32(1) + e)
    return x * share


def gated(isa: str, gate: Floats, up: Floats, activation: int) -> Floats:
    """activation(gate) * up; or gate * sigmoid(1.702 * gate) * (up + 1), both clamped."""
    with np.errstate(all="ignore"):
        if native.ACTIVATIONS[activation] != "clamped_glu":
            return activated(isa, gate, activation) * up
        gate, up = np.minimum(gate, F32(7)), np.clip(up, F32(-7), F32(7))
        return times_sigmoid(gate, gate * F32(1.702), isa != "base") * (up + F32(1))


def add(x: Floats, y: Floats) -> Floats:
    with np.errstate(all="ignore"):
        return x + y


def scale(x: Floats, factor: float) -> Floats:
    with np.errstate(all="ignore"):
        return x * F32(factor)


def clamp(x: Floats, limit: float) -> Floats:
    """A NaN stays one."""
    return np.clip(x, -F32(limit), F32(limit))


def scale_by_position(x: Floats, position: int, beta: float, original: int) -> Floats:
    steps = np.float64(position // original)
    return scale(x, 1 + np.float64(F32(beta)) * natural_log(1 + float(steps)))


def log_sum_exp(largest: np.float32, total: np.float32) -> np.float32:
    with np.errstate(all="ignore"):
        return F32(np.float64(largest) + natural_log(float(total)))


def softcap(isa: str, logits: Floats, cap: float) -> Floats:
    with np.errstate(all="ignore"):
        return F32(cap) * tanh(logits / F32(cap), isa != "base")


def summarize_tile(isa: str, logits: Floats, base: int) -> Summary:
    real = ~np.isnan(logits)
    largest = logits[real].max() if real.any() else F32(-np.inf)
    best = base + int(np.flatnonzero(real & (logits == largest))[0]) if real.any() else base
    start = F32(0) if largest == -np.inf else largest
    lanes = np.zeros(16, F32)
    with np.errstate(all="ignore"):
        for v in exp2((lanes_of(logits, -np.inf) - start) * LOG2E, isa != "base"):
            lanes = lanes + v
    total = F32(tree(lanes))
    return largest, total, best, log_sum_exp(largest, total)


def merge_summaries(isa: str, maxima: Floats, sums: Floats, best: Ints) -> Summary:
    winner = int(np.argmax(maxima))
    start = F32(0) if maxima[winner] == -np.inf else maxima[winner]
    with np.errstate(all="ignore"):
        shares = exp2((maxima - start) * LOG2E, isa != "base")
        total = F32(0)
        for share, part in zip(shares, sums, strict=True):
            total = total + part * share
    return maxima[winner], total, int(best[winner]), log_sum_exp(maxima[winner], total)


def whole_row(isa: str, logits: Floats) -> Summary:
    tiles = [summarize_tile(isa, logits[i : i + TILE], i) for i in range(0, logits.size, TILE)]
    maxima, sums, best, _ = (np.array(column) for column in zip(*tiles, strict=True))
    return merge_summaries(isa, maxima, sums, best)


def edit_tile(
    logits: Floats, base: int, mask: NDArray[np.uint32] | None, edits: NDArray[np.void]
) -> Floats:
    out = logits.copy()
    with np.errstate(all="ignore"):
        for token, scale, add in edits.tolist():
            if base <= token < base + out.size:
                x = out[token - base]
                x = x / F32(scale) if x > 0 else x * F32(scale)
                out[token - base] = x + F32(add)
    if mask is not None:
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[base : base + out.size]
        out[bits == 0] = -np.inf
    return out


def ranked(logits: Floats, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens by logit, largest first, ties to the lowest token."""
    return tokens[np.lexsort((tokens, -logits[tokens]))]


def top_k_tile(logits: Floats, base: int, k: int) -> tuple[Ints, Floats]:
    best = ranked(logits, np.flatnonzero(logits > -np.inf))[:k]
    ids, values = np.full(k, -1, np.int32), np.full(k, -np.inf, F32)
    ids[: best.size], values[: best.size] = base + best, logits[best] + F32(0)
    return ids, values


def sample_weights(
    isa: str, logits: Floats, temperature: float, top_k: int, top_p: float, min_p: float
) -> NDArray[np.int64]:
    """Integer weight of each token after all filters, int64."""
    real = logits > -np.inf
    best = logits[real].max()
    with np.errstate(all="ignore"):
        octaves = min(LOG2E / F32(temperature), F32(3e38))
        log2p = np.where(logits < best, (logits - best) * octaves, F32(0)).astype(F32)
        p = exp2(np.where(real, log2p, F32(-np.inf)), isa != "base")
    p = np.where(p < F32(min_p), F32(0), p)
    weights: NDArray[np.int64] = np.rint(p * F32(BEST_WEIGHT)).astype(np.int64)
    if 0 < top_k < logits.size:
        weights[ranked(logits, np.flatnonzero(weights))[top_k:]] = 0
    if F32(top_p) < 1:
        order = ranked(logits, np.flatnonzero(weights))
        running = np.cumsum(weights[order])
        target = max(1, int(np.ceil(float(F32(top_p)) * float(running[-1]))))
        weights[order[np.searchsorted(running, target) + 1 :]] = 0
    return weights


def sample(
    isa: str, logits: Floats, temperature: float, top_k: int, top_p: float, min_p: float, u: float
) -> int:
    if not (logits > -np.inf).any():
        return -1
    running = np.cumsum(sample_weights(isa, logits, temperature, top_k, top_p, min_p))
    r = min(int(u * float(running[-1])), int(running[-1]) - 1)
    return int(np.searchsorted(running, r, side="right"))


def some_logits(
    rng: np.random.Generator, n: int, holes: float = 0.0, steps: float | None = None
) -> Floats:
    """Test data: `holes` of the logits are -inf; `steps` rounds them so that ties are common."""
    logits = (rng.standard_normal(n) * 4).astype(F32)
    if steps:
        logits = np.round(logits * steps).astype(F32) / F32(steps)
    logits[rng.random(n) < holes] = -np.inf
    return logits
