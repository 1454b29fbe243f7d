"""Paged attention in numpy, in the kernels' order of operations.

The arguments are the bindings' own after q, then the ISA level, for its arithmetic.
All rows go through a step together and masks keep what a row does not see from reaching it, so
nothing here shows how the kernels cut rows into groups and passes. `exact_attention` is the softmax
of the textbook in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels.exact import F32, Floats, exp2, fma, tanh, tree
from tests.kernels.guard import Scalar
from tests.kernels.kv_floats import Bools, Bytes
from tests.kernels.page_twin import Ints, row_bytes, twins
from tests.kernels.ramp_twin import Ramp

TILE, CHUNK, NO_MAX = 64, 256, F32(-1e30)
LOG2_E = F32(1.44269504)
Sinks = tuple[native.KVLayout, Bytes, int]  # layout, pages, block


class Past(NamedTuple):
    """What a batch that begins at `first_position` attends to."""

    pages: Bytes
    layout: native.KVLayout
    block_table: Ints
    layer: int
    first_position: int
    scale: float
    window: int
    softcap: float = 0.0  # 0: none
    slopes: Floats | None = None  # (heads,)
    rounded_slopes: bool = False
    sink_logits: Floats | None = None  # (heads,)
    sinks: Sinks | None = None  # where the first block is
    beginning: int = 0  # tokens that rows see beside their window; far ones with another q
    far_q: Floats | None = None  # as q

    @property
    def sinks_end(self) -> int:
        return self.layout.block_size if self.sinks else 0


class Part(NamedTuple):
    """Whole chunks of K and V of one format; a token of another is seen by no row."""

    keys: Bytes  # (L, ..)
    values: Bytes
    sees: Bools  # (N, L)
    layout: native.KVLayout
    q: Floats  # (N, k_dim), of the rows to these tokens


class Scaling(NamedTuple):
    """From q.k to what enters exp2: times `inner` and through tanh, if there is a softcap; then
    times c."""

    inner: F32 | None
    c: F32

    @classmethod
    def of(cls, past: Past) -> Scaling:
        scale, softcap = F32(past.scale), F32(past.softcap)
        return cls(scale / softcap, softcap * LOG2_E) if softcap else cls(None, scale * LOG2_E)


def scores_of(part: Part, level: str) -> Floats:
    """(N, L): no score depends on another, so those of all tokens that a row sees come at once."""
    seen = part.sees.any(axis=0)
    scores = np.zeros(part.sees.shape, F32)
    k_twin, _ = twins(part.layout, level)
    scores[:, seen] = k_twin.scores(part.q, part.keys[seen], level != "base")
    return scores


def one_chunk(
    parts: list[Part], scores: list[Floats], begin: int, scaling: Scaling, ramp: Ramp | None,
    level: str,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """State of every row over a chunk. Of a tile one part comes after the other."""
    rows, fused = len(parts[0].q), level != "base"
    m, lanes = np.full(rows, NO_MAX), np.zeros((rows, 16), F32)
    o = np.zeros((rows, parts[0].layout.v_dim), F32)
    for start, i in product(range(begin, begin + CHUNK, TILE), range(len(parts))):
        tile, part = slice(start, start + TILE), parts[i]
        seen = part.sees[:, tile]
        if not seen.any():
            continue
        with np.errstate(all="ignore"):
            score = scores[i][:, tile]
            if scaling.inner is not None:
                score = tanh(score * scaling.inner, fused)
            if ramp is not None:
                score = score + ramp.of_keys(begin, np.arange(start, start + TILE))
            score = np.where(seen, score, F32(-np.inf))
            after = np.maximum(score.max(axis=1) * scaling.c, m)
            alpha = exp2(m - after, fused)
            p = exp2(fma(score, scaling.c, -after[:, None], fused), fused)
        m, lanes = after, lanes * alpha[:, None]
        for sixteen in range(0, TILE, 16):
            lanes = lanes + p[:, sixteen : sixteen + 16]
        _, v_twin = twins(part.layout, level)
        o = v_twin.add_values(o * alpha[:, None], p, part.values[tile], seen, fused)
    return m, tree(lanes), o


def one_head(
    parts: list[Part], scaling: Scaling, ramp: Ramp | None, sink_logits: Floats | None, isa: str
) -> Floats:
    """Sink logits (N,)."""
    rows, fused = len(parts[0].q), isa != "base"
    alike = all(part.layout is parts[0].layout for part in parts)
    level = isa if alike or not fused else "avx512"  # beside int4 pages bf16 ones take no tiles
    scores = [scores_of(part, level) for part in parts]
    m, total = np.full(rows, NO_MAX), np.zeros(rows, F32)
    o = np.zeros((rows, parts[0].layout.v_dim), F32)
    for start in range(0, len(parts[0].keys), CHUNK):
        seen = np.any([part.sees[:, start : start + CHUNK].any(axis=1) for part in parts], axis=0)
        if not seen.any():
            continue
        chunk_m, chunk_l, chunk_o = one_chunk(parts, scores, start, scaling, ramp, level)
        if ramp is not None:
            chunk_m = chunk_m + ramp.of_chunk(start, scaling.c)
        after = np.maximum(chunk_m, m)
        keep, join = exp2(m - after, fused), exp2(chunk_m - after, fused)
        total = np.where(seen, fma(chunk_l, join, total * keep, fused), total)
        m = np.where(seen, after, m)
        merged = fma(chunk_o, join[:, None], o * keep[:, None], fused)
        o = np.where(seen[:, None], merged, o)
    if sink_logits is None:
        return o * (F32(1) / total)[:, None]
    sinks = sink_logits * LOG2_E
    after = np.maximum(sinks, m)
    keep, join = exp2(m - after, fused), exp2(sinks - after, fused)
    return o * (keep / fma(total, keep, join, fused))[:, None]


def positions_of(q: Floats, past: Past) -> Ints:
    """Of the rows of a kv head, (rows * G)."""
    at = np.arange(past.first_position, past.first_position + len(q), dtype=np.int32)
    return np.repeat(at, q.shape[1] // past.layout.kv_heads)


def gather(q: Floats, past: Past) -> Iterator[list[Part]]:
    """Return for each kv head what the rows see, sinks or the beginning of far rows first."""
    rows, heads, k_dim = q.shape
    group, end = heads // past.layout.kv_heads, past.first_position + rows
    positions = positions_of(q, past)
    slots = np.arange(-(-end // CHUNK) * CHUNK)
    is_far = (past.window > 0) & (positions >= past.window + past.beginning)
    lowest = np.where(is_far, positions - past.window + 1, 0)
    sees = (slots <= positions[:, None]) & (slots >= lowest[:, None])
    begins = is_far[:, None] & (slots < past.beginning)
    for head in range(past.layout.kv_heads):
        of_head = slice(head * group, (head + 1) * group)
        mine = q[:, of_head].reshape(-1, k_dim)
        where = past.pages, past.layout, past.block_table, past.layer, head
        parts = [_part(*where, sees & (slots >= past.sinks_end), mine)]
        if past.sinks:
            layout, pages, block = past.sinks
            first = sees & (slots < past.sinks_end)
            table = np.array([block], np.int32)
            parts.insert(0, _part(pages, layout, table, past.layer, head, first, mine))
        if past.far_q is not None:
            far = past.far_q[:, of_head].reshape(-1, k_dim)
            parts.insert(0, _part(*where, begins, far))
        yield parts


def _part(
    pages: Bytes, layout: native.KVLayout, block_table: Ints, layer: int, head: int, sees: Bools,
    q: Floats,
) -> Part:  # fmt: skip
    seen = np.flatnonzero(sees.any(axis=0))
    block, slot = np.divmod(seen, layout.block_size)
    found = []
    for at in row_bytes(layout, block_table[block], layer, head, slot):
        found.append(np.zeros((sees.shape[1], at.shape[1]), np.uint8))
        found[-1][seen] = pages[at]
    keys, values = found
    return Part(keys, values, sees, layout, q)


def by_head(outs: list[NDArray[Scalar]], q: Floats) -> NDArray[Scalar]:
    """(kv_heads) of (rows * G, v_dim) -> (rows, heads, v_dim)."""
    return np.concatenate([out.reshape(len(q), -1, out.shape[1]) for out in outs], axis=1)


def of_rows(of_heads: Floats | None, q: Floats, past: Past) -> list[Floats | None]:
    """What heads have, of each kv head's rows, (kv_heads) of (rows * G,)."""
    if of_heads is None:
        return [None] * past.layout.kv_heads
    by_kv_head = of_heads.reshape(past.layout.kv_heads, -1)
    return [np.tile(group, len(q)) for group in by_kv_head]


def attention(q: Floats, past: Past, isa: str) -> Floats:
    scaling, outs = Scaling.of(past), []
    logits, slopes = (of_rows(each, q, past) for each in (past.sink_logits, past.slopes))
    shape = past.rounded_slopes, past.scale, past.softcap
    for parts, logit, slope in zip(gather(q, past), logits, slopes, strict=True):
        ramp = Ramp.of(slope, positions_of(q, past), *shape)
        outs.append(one_head(parts, scaling, ramp, logit, isa))
    return by_head(outs, q)


def exact_attention(q: Floats, past: Past) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Float64 softmax over what the pages hold, and a bound on |kernel - it|: (rows, heads, v_dim).

    Let u = 2^-24. A score of D products is off by at most 2 D u sum|q k|; times scale, and with c,
    s*c and m*c rounded (4 u of |s scale| each), that is a relative error in p, once above and once
    below the fraction. exp2 adds 2.5e-7 to each, sums of n terms and merges (n + 16) u, and V's
    format says how far its product is off for what it makes of weights. A softcap keeps what a
    score is off by or makes it less, and adds 3 ulps (6 u) of tanh and 2 u of its factor. Of slopes
    the biases, their sums with scores and what chunks are apart are rounded 14 times, each within u
    of the largest bias; half of that counts as size, which enters (2 D + 20) u, D >= 16. Where
    dot_bf16 flushes denormals a product may be lost: 2^-126 a step.
    """
    u, scale, outs, bounds = 2.0**-24, past.scale, [], []
    k_dim, v_dim = past.layout.k_dim, past.layout.v_dim
    all_logits, all_slopes = (of_rows(each, q, past) for each in (past.sink_logits, past.slopes))
    for parts, logits, slopes in zip(gather(q, past), all_logits, all_slopes, strict=True):
        rows, scores, sizes, decoded = len(parts[0].q), [], [], []
        ramp = Ramp.of(slopes, positions_of(q, past), past.rounded_slopes, past.scale)
        bias = np.zeros(1) if ramp is None else ramp.exact(np.arange(parts[0].sees.shape[1]))
        for part in parts:
            k_twin, v_twin = twins(part.layout)
            rounded = (
                k_twin.rounded(k_twin.turned(part.q)),
                k_twin.decode(part.keys)[:, :k_dim],
                k_twin.sizes(part.keys)[:, :k_dim],
            )
            a, k, k_size = (x.astype(np.float64) for x in rounded)
            score = a @ k.T * scale
            if past.softcap:
                score = past.softcap * np.tanh(score / past.softcap)
            scores.append(np.where(part.sees, score + bias, -np.inf))
            way = np.where(part.sees, np.abs(bias), 0).max(axis=1)
            size = np.where(part.sees, np.abs(a) @ k_size.T * scale, 0).max(axis=1)
            sizes.append(size + way / 2)
            decoded.append(v_twin.decode(part.values)[:, :v_dim].astype(np.float64))
        whole = np.concatenate(scores, axis=1)
        extra = np.full(rows, -np.inf) if logits is None else logits.astype(np.float64)
        most = np.maximum(whole.max(axis=1), extra)[:, None]
        p = np.exp(whole - most)
        p /= p.sum(axis=1, keepdims=True) + np.exp(extra[:, None] - most)
        n, size = np.isfinite(whole).sum(axis=1), np.max(sizes, axis=0)
        size = size if logits is None else np.maximum(size, np.abs(extra))
        relative = 2 * ((2 * k_dim + 20) * u * size + 3e-7) + 2 * (n + 16) * u
        v = np.concatenate(decoded)
        error = (relative[:, None] * p) @ np.abs(v)
        for part, weights in zip(parts, np.split(p, len(parts), axis=1), strict=True):
            error += twins(part.layout)[1].product_error(weights, part.values)[:, :v_dim]
        outs.append(p @ v)
        bounds.append(1.01 * error + 512 * 2.0**-126)
    return by_head(outs, q), by_head(bounds, q)
