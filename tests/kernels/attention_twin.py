"""Paged attention and its page writers in numpy, in the kernels' order of operations.

The arguments are the bindings' own, with `fused` (is fma rounded once?) in place of the ISA level.
All rows go through a step together and masks keep what a row does not see from reaching it, so
nothing here shows how the kernels cut rows into groups and passes. `exact_attention` is the softmax
of the textbook in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels.exact import fma32

F32 = np.float32
Floats = NDArray[np.float32]
TILE, CHUNK, NO_MAX = 64, 256, F32(-1e30)
LOG2_E = F32(1.44269504)
# 2^f for |f| <= 0.5, highest power first; the last is 2^0.
EXP2 = [
    F32(float.fromhex(c))
    for c in (
        "0x1.5bba14p-10",
        "0x1.3cea88p-7",
        "0x1.c6b752p-5",
        "0x1.ebf9bcp-3",
        "0x1.62e42ap-1",
        "1",
    )
]


def fma(a: Floats, b: Floats, c: Floats, fused: bool) -> Floats:
    with np.errstate(all="ignore"):
        return fma32(a, b, c) if fused else (a * b + c).astype(F32)


def exp2(x: Floats, fused: bool) -> Floats:
    """exp2_below_127 of exp.h."""
    with np.errstate(all="ignore"):
        n = np.rint(x)
        f = x - n
        p = np.full_like(x, EXP2[0])
        for c in EXP2[1:]:
            p = fma(p, f, c, fused)
        tiny = x < -126
        whole = np.where(tiny | np.isnan(x), F32(0), n)
        return np.where(tiny, F32(0), np.ldexp(p, whole.astype(np.int32))).astype(F32)


def to_bf16(values: Floats) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values, F32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(F32)


def tile_offsets(
    layout: native.KVLayout, position: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Byte offsets inside a head's tiles of one token's K (k_dim) and V (v_dim)."""
    slot = position % layout.block_size
    d_k, d_v = np.arange(layout.k_dim), np.arange(layout.v_dim)
    if layout.k_type == "bf16":  # [tok/16][D/2][16 tok][2 d]
        k = (((slot // 16) * (layout.k_dim // 2) + d_k // 2) * 16 + slot % 16) * 4 + d_k % 2 * 2
    else:  # [tok/16][D][16 tok]
        k = (((slot // 16) * layout.k_dim + d_k) * 16 + slot % 16) * 4
    if layout.v_type == "bf16":  # [tok/2][D/16][16 d][2 tok]
        v = ((slot // 2) * layout.v_dim + d_v) * 4 + slot % 2 * 2
    else:  # [tok][D]
        v = (slot * layout.v_dim + d_v) * 4
    return k, v


def head_offsets(layout: native.KVLayout, block: int, layer: int, head: int) -> tuple[int, int]:
    """Where one head's K and V of one block begin: [block][layer][K|V][kv_head]."""
    k_bytes = layout.block_size * layout.k_dim * (2 if layout.k_type == "bf16" else 4)
    v_bytes = layout.block_size * layout.v_dim * (2 if layout.v_type == "bf16" else 4)
    layer_bytes = layout.kv_heads * (k_bytes + v_bytes)
    block_bytes = -(-layout.layers * layer_bytes // 4096) * 4096
    k = block * block_bytes + layer * layer_bytes + head * k_bytes
    return k, k + layout.kv_heads * k_bytes + head * (v_bytes - k_bytes)


def element_bytes(values: Floats, kind: str) -> NDArray[np.uint8]:
    raw = to_bf16(values) if kind == "bf16" else np.ascontiguousarray(values, F32)
    return raw.view(np.uint8).reshape(len(values), -1)


def write_kv(pages, layout, block_table, positions, layer, k, v) -> None:
    for i, position in enumerate(positions):
        block = int(block_table[position // layout.block_size])
        k_at, v_at = tile_offsets(layout, int(position))
        for head in range(layout.kv_heads):
            k_base, v_base = head_offsets(layout, block, layer, head)
            for base, at, values, kind in (
                (k_base, k_at, k[i, head], layout.k_type),
                (v_base, v_at, v[i, head], layout.v_type),
            ):
                raw = element_bytes(values, kind)
                for byte in range(raw.shape[1]):
                    pages[base + at + byte] = raw[:, byte]


def read_kv(pages, layout, block_table, layer, head, position) -> tuple[Floats, Floats]:
    """What the pages hold of one token: K (k_dim), V (v_dim)."""
    block = int(block_table[position // layout.block_size])
    found = []
    for base, at, kind in zip(
        head_offsets(layout, block, layer, head),
        tile_offsets(layout, position),
        (layout.k_type, layout.v_type),
        strict=True,
    ):
        size, dtype = (2, np.uint16) if kind == "bf16" else (4, F32)
        raw = pages[(base + at)[:, None] + np.arange(size)].copy().view(dtype)[:, 0]
        found.append(from_bf16(raw) if kind == "bf16" else raw)
    return found[0], found[1]


def chain(
    acc: Floats, columns: Floats, rows: Floats, sees: NDArray[np.bool_], kind: str, fused: bool
) -> Floats:
    """acc (N, W) + columns (N, S) times rows (S, W), step by step.

    A step that row n does not see is skipped. A bf16 step is two elements, the odd one first; an
    unseen element of a seen pair counts as 0.
    """
    step = 2 if kind == "bf16" else 1
    for i in range(0, columns.shape[1], step):
        after = acc
        for j in reversed(range(i, i + step)):
            seen = sees[:, j : j + 1]
            after = fma(
                np.where(seen, columns[:, j : j + 1], F32(0)),
                np.where(seen, rows[j], F32(0)),
                after,
                fused,
            )
        acc = np.where(sees[:, i : i + step].any(axis=1, keepdims=True), after, acc)
    return acc


def add_lanes(lanes: Floats) -> Floats:
    """reduce_add of simd.h over (N, 16)."""
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def one_chunk(q, keys, values, sees, c, layout, fused):
    """State of every row over one chunk: q (N, k_dim), keys (256, k_dim), values, sees (N, 256)."""
    rows = len(q)
    m, lanes = np.full(rows, NO_MAX), np.zeros((rows, 16), F32)
    o = np.zeros((rows, values.shape[1]), F32)
    every = np.ones((rows, q.shape[1]), bool)
    for start in range(0, CHUNK, TILE):
        tile, seen = slice(start, start + TILE), sees[:, start : start + TILE]
        if not seen.any():
            continue
        with np.errstate(all="ignore"):
            score = chain(np.zeros((rows, TILE), F32), q, keys[tile].T, every, layout.k_type, fused)
            score = np.where(seen, score, F32(-np.inf))
            after = np.maximum(score.max(axis=1) * c, m)
            alpha = exp2(m - after, fused)
            p = exp2(fma(score, c, -after[:, None], fused), fused)
        m, lanes = after, lanes * alpha[:, None]
        for sixteen in range(0, TILE, 16):
            lanes = lanes + p[:, sixteen : sixteen + 16]
        weights = from_bf16(to_bf16(p)) if layout.v_type == "bf16" else p
        o = chain(o * alpha[:, None], weights, values[tile], seen, layout.v_type, fused)
    return m, add_lanes(lanes), o


def one_head(q, keys, values, sees, c, layout, fused) -> Floats:
    """q (N, k_dim), keys (L, k_dim), values (L, v_dim), sees (N, L); L is whole chunks."""
    m, total = np.full(len(q), NO_MAX), np.zeros(len(q), F32)
    o = np.zeros((len(q), values.shape[1]), F32)
    for start in range(0, len(keys), CHUNK):
        part = slice(start, start + CHUNK)
        seen = sees[:, part].any(axis=1)
        if not seen.any():
            continue
        chunk_m, chunk_l, chunk_o = one_chunk(
            q, keys[part], values[part], sees[:, part], c, layout, fused
        )
        after = np.maximum(chunk_m, m)
        keep, join = exp2(m - after, fused), exp2(chunk_m - after, fused)
        total = np.where(seen, fma(chunk_l, join, total * keep, fused), total)
        m = np.where(seen, after, m)
        merged = fma(chunk_o, join[:, None], o * keep[:, None], fused)
        o = np.where(seen[:, None], merged, o)
    return o * (F32(1) / total)[:, None]


def gather(q, pages, layout, block_table, layer, first_position, window):
    """For each kv head: q (rows * G, k_dim), keys and values in whole chunks, who sees what."""
    rows, heads, k_dim = q.shape
    group, end = heads // layout.kv_heads, first_position + rows
    positions = np.repeat(np.arange(first_position, end), group)
    slots = np.arange(-(-end // CHUNK) * CHUNK)
    lowest = positions - window + 1 if window else np.zeros_like(positions)
    sees = (slots <= positions[:, None]) & (slots >= lowest[:, None])
    for head in range(layout.kv_heads):
        keys = np.zeros((len(slots), layout.k_dim), F32)
        values = np.zeros((len(slots), layout.v_dim), F32)
        for t in np.flatnonzero(sees.any(axis=0)):
            keys[t], values[t] = read_kv(pages, layout, block_table, layer, head, int(t))
        mine = q[:, head * group : (head + 1) * group].reshape(-1, k_dim)
        yield (from_bf16(to_bf16(mine)) if layout.k_type == "bf16" else mine), keys, values, sees


def by_head(outs, q, layout):
    """(kv_heads) of (rows * G, v_dim) -> (rows, heads, v_dim)."""
    return np.concatenate([out.reshape(q.shape[0], -1, layout.v_dim) for out in outs], axis=1)


def attention(
    q, pages, layout, block_table, layer, first_position, scale, window=0, *, fused
) -> Floats:
    c = F32(scale) * LOG2_E
    parts = gather(q, pages, layout, block_table, layer, first_position, window)
    return by_head([one_head(*part, c, layout, fused) for part in parts], q, layout)


def exact_attention(q, pages, layout, block_table, layer, first_position, scale, window=0):
    """Float64 softmax over what the pages hold, and a bound on |kernel - it|: (rows, heads, v_dim).

    Let u = 2^-24. A score of D products is off by at most 2 D u sum|q k|; times scale, and with c,
    s*c and m*c rounded (4 u of |s scale| each), that is a relative error in p, once above and once
    below the fraction. exp2 adds 2.5e-7 to each, sums of n terms and merges (n + 16) u, and bf16 V
    rounds p above by 2^-8. Where dot_bf16 flushes denormals a product may be lost: 2^-126 a step.
    """
    u, outs, bounds = 2.0**-24, [], []
    for mine, keys, values, sees in gather(
        q, pages, layout, block_table, layer, first_position, window
    ):
        a, k, v = (x.astype(np.float64) for x in (mine, keys, values))
        score = np.where(sees, a @ k.T * scale, -np.inf)
        size = np.where(sees, np.abs(a) @ np.abs(k).T * scale, 0).max(axis=1)
        p = np.exp(score - score.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        n = sees.sum(axis=1)
        relative = 2 * ((2 * layout.k_dim + 12) * u * size + 3e-7) + 2 * (n + 16) * u
        relative += 2.0**-8 if layout.v_type == "bf16" else 0
        outs.append(p @ v)
        bounds.append(1.01 * relative[:, None] * (p @ np.abs(v)) + 512 * 2.0**-126)
    return by_head(outs, q, layout), by_head(bounds, q, layout)
