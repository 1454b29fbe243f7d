"""The row kernels in numpy, operation by operation: what each ISA level must return, bit for bit.

Functions are named as the bindings and return what those write. `isa` chooses only how a fused
multiply-add rounds: once, or twice on `base`. `log` is libm's, in float64 on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.kernels.exact import fma32

F32 = np.float32
LOG2E = F32(1.4426950408889634)
TILE = 1024
BEST_WEIGHT = 2**30


def fma_of(isa: str) -> Callable:
    return (lambda a, b, c: a * b + c) if isa == "base" else fma32


def exp2_below_127(isa: str, x: np.ndarray) -> np.ndarray:
    """kernels/exp.h: 2^n * p(f), exactly 0 below -126."""
    fma = fma_of(isa)
    with np.errstate(all="ignore"):
        n = np.rint(x)
        f = x - n
        p = np.full_like(x, F32(float.fromhex("0x1.5bba14p-10")))
        for c in ("0x1.3cea88p-7", "0x1.c6b752p-5", "0x1.ebf9bcp-3", "0x1.62e42ap-1", "0x1p+0"):
            p = fma(p, f, F32(float.fromhex(c)))
        whole = np.where(np.isfinite(n), np.clip(n, -126, 127), 0).astype(np.int32)
        return np.where(x < -126, F32(0), np.where(np.isnan(x), x, np.ldexp(p, whole)))


def lanes_of(x: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """(vectors, 16), the last vector filled up."""
    padded = np.full(-(-x.size // 16) * 16, fill, F32)
    padded[: x.size] = x
    return padded.reshape(-1, 16)


def reduce_add(lanes: np.ndarray) -> np.float32:
    for width in (8, 4, 2, 1):
        lanes = lanes[:width] + lanes[width : 2 * width]
    return lanes[0]


def rms_norm(isa: str, x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    fma, squares = fma_of(isa), np.zeros(16, F32)
    with np.errstate(all="ignore"):
        for v in lanes_of(x):
            squares = fma(v, v, squares)
        mean = reduce_add(squares) / F32(x.size)
        return x * (F32(1) / np.sqrt(mean + F32(eps))) * weight


def rope(isa: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, style: int) -> np.ndarray:
    fma, out, half = fma_of(isa), x.copy(), cos.size
    first, second = slice(0, half), slice(half, 2 * half)
    if style == 0:
        first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
    with np.errstate(all="ignore"):
        a, b = x[:, first], x[:, second]
        out[:, first] = fma(a, cos, -(b * sin))
        out[:, second] = fma(b, cos, a * sin)
    return out


def silu_mul(isa: str, gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        negative = gate < 0
        e = exp2_below_127(isa, np.where(negative, -gate, gate) * -LOG2E)
        share = np.where(negative, e, F32(1)) / (F32(1) + e)
        return gate * share * up


def scale(x: np.ndarray, factor: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return x * F32(factor)


def log_sum_exp(largest: np.float32, total: np.float32) -> np.float32:
    with np.errstate(all="ignore"):
        return F32(np.float64(largest) + np.log(np.float64(total)))


def summarize_tile(isa: str, logits: np.ndarray, base: int) -> tuple:
    real = ~np.isnan(logits)
    largest = logits[real].max() if real.any() else F32(-np.inf)
    best = base + int(np.flatnonzero(real & (logits == largest))[0]) if real.any() else base
    start = F32(0) if largest == -np.inf else largest
    total = np.zeros(16, F32)
    with np.errstate(all="ignore"):
        for v in exp2_below_127(isa, (lanes_of(logits, -np.inf) - start) * LOG2E):
            total = total + v
    total = reduce_add(total)
    return largest, total, best, log_sum_exp(largest, total)


def merge_summaries(isa: str, maxima: np.ndarray, sums: np.ndarray, best: np.ndarray) -> tuple:
    winner = int(np.argmax(maxima))
    start = F32(0) if maxima[winner] == -np.inf else maxima[winner]
    with np.errstate(all="ignore"):
        shares = exp2_below_127(isa, (maxima - start) * LOG2E)
        total = F32(0)
        for share, part in zip(shares, sums, strict=True):
            total = total + part * share
    return maxima[winner], total, int(best[winner]), log_sum_exp(maxima[winner], total)


def whole_row(isa: str, logits: np.ndarray) -> tuple:
    tiles = [summarize_tile(isa, logits[i : i + TILE], i) for i in range(0, logits.size, TILE)]
    maxima, sums, best, _ = (np.array(column) for column in zip(*tiles, strict=True))
    return merge_summaries(isa, maxima, sums, best)


def edit_tile(logits: np.ndarray, base: int, mask: np.ndarray | None, edits: np.ndarray):
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


def ranked(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Tokens by logit, largest first, ties to the lowest token."""
    return tokens[np.lexsort((tokens, -logits[tokens]))]


def top_k_tile(logits: np.ndarray, base: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    best = ranked(logits, np.flatnonzero(logits > -np.inf))[:k]
    ids, values = np.full(k, -1, np.int32), np.full(k, -np.inf, F32)
    ids[: best.size], values[: best.size] = base + best, logits[best] + F32(0)
    return ids, values


def sample_weights(isa, logits, temperature, top_k, top_p, min_p) -> np.ndarray:
    """Integer weight of each token after all filters, int64."""
    real = logits > -np.inf
    best = logits[real].max()
    with np.errstate(all="ignore"):
        octaves = min(LOG2E / F32(temperature), F32(3e38))
        log2p = np.where(logits < best, (logits - best) * octaves, F32(0)).astype(F32)
        p = exp2_below_127(isa, np.where(real, log2p, F32(-np.inf)))
    p = np.where(p < F32(min_p), F32(0), p)
    weights = np.rint(p * F32(BEST_WEIGHT)).astype(np.int64)
    if 0 < top_k < logits.size:
        weights[ranked(logits, np.flatnonzero(weights))[top_k:]] = 0
    if F32(top_p) < 1:
        order = ranked(logits, np.flatnonzero(weights))
        running = np.cumsum(weights[order])
        target = max(1, int(np.ceil(float(F32(top_p)) * float(running[-1]))))
        weights[order[np.searchsorted(running, target) + 1 :]] = 0
    return weights


def sample(isa, logits, temperature, top_k, top_p, min_p, u) -> int:
    if not (logits > -np.inf).any():
        return -1
    running = np.cumsum(sample_weights(isa, logits, temperature, top_k, top_p, min_p))
    r = min(int(u * float(running[-1])), int(running[-1]) - 1)
    return int(np.searchsorted(running, r, side="right"))


def some_logits(rng, n, holes=0.0, steps=None):
    """Test data: `holes` of the logits are -inf; `steps` rounds them so that ties are common."""
    logits = (rng.standard_normal(n) * 4).astype(F32)
    if steps:
        logits = np.round(logits * steps).astype(F32) / F32(steps)
    logits[rng.random(n) < holes] = -np.inf
    return logits
