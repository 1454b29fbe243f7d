"""The rows of a matmul in numpy, quantised and packed as the kernels do it, bit for bit.

Knows nothing of weights.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.kernels.exact import Floats, from_bf16, to_bf16, tree

Ints = NDArray[np.int64]

MAX_TILE = 6
BLOCK = 16  # rows of a tile of AMX


@dataclass(frozen=True)
class Quantized:
    """Rows as int8 groups of 32."""

    quants: Ints  # (M, K)
    scales: Floats  # (M, K / 32)
    am: Floats  # (M, K / 32): scale * sum of the group


def row_sums(values: Floats) -> tuple[Floats, Floats, Floats]:
    """(M, 32) to the sums of all, of the first 16 and of the last 16, each half as a tree."""
    low, high = tree(values.reshape(len(values), 2, 16)).T
    sums = (np.where(np.isfinite(v), v, np.float32(np.nan)) for v in (low + high, low, high))
    whole, low, high = sums
    return whole, low, high


def quantize_rows(x: Floats) -> Quantized:
    groups = x.reshape(len(x), -1, 32)
    with np.errstate(all="ignore"):
        amax = np.abs(groups).max(-1)
        bad = ~np.isfinite(amax)
        zero = bad | (amax < np.float32(1e-30))
        scales = np.where(zero, np.float32(0), amax / np.float32(127))
        inverse = np.where(zero, np.float32(0), np.float32(127) / amax)
        quants = np.where(zero[..., None], 0, np.rint(groups * inverse[..., None])).astype(np.int64)
        scales = np.where(bad, np.float32(np.nan), scales).astype(np.float32)
        am = scales * quants.sum(-1).astype(np.float32)
    return Quantized(quants.reshape(x.shape), scales, am)


def tiles_of(rows: int) -> list[range]:
    """Balanced tiles of at most six rows, the longer ones first."""
    count = -(-rows // MAX_TILE)
    base, extra = divmod(rows, count)
    starts = np.cumsum([0, *(base + (t < extra) for t in range(count))])
    return [range(a, b) for a, b in itertools.pairwise(starts.tolist())]


def _pack_two_terms(isa: str, x: Floats) -> bytes:
    """One group of 32 after the other: 32 rows of 4 bytes a token, then three rows of sums."""
    parts = []
    for group in x.reshape(len(x), -1, 32).transpose(1, 0, 2):
        values = group
        bits = group.view(np.uint32)
        if isa == "avx512bf16":
            hi = to_bf16(group)
            lo = to_bf16(group - from_bf16(hi))
            values = from_bf16(hi) + from_bf16(lo)
            by_step = np.stack([hi, lo], 1).reshape(len(x), 2, 8, 2, 2).astype(np.uint32)
            # (4j, 4j+2), (4j+1, 4j+3)
            pairs = by_step[..., 0, :] | by_step[..., 1, :] << np.uint32(16)
            bits = pairs.transpose(0, 2, 1, 3).reshape(len(x), 32)
        parts += [bits.T.tobytes(), *(s.tobytes() for s in row_sums(values))]
    return b"".join(parts)


def _pack_tile(isa: str, x: Floats, kind: str) -> bytes:
    if kind == "ABF16X2":
        with np.errstate(all="ignore"):
            return _pack_two_terms(isa, x)
    if kind == "AF32":
        return x.T.astype(np.float32).tobytes()
    if kind == "ABF16":
        return _pairs(x).reshape(len(x), -1, 2).transpose(1, 0, 2).tobytes()
    return _pack_int8(x, steps=True)


def _pairs(x: Floats) -> NDArray[np.uint16]:
    """Rows of bf16, of an even number of columns."""
    return np.pad(to_bf16(x), ((0, 0), (0, x.shape[1] % 2)))


def _pack_bf16(x: Floats) -> bytes:
    """32 columns after the other, of each the rows; a shorter run of columns at the end."""
    pairs = _pairs(x)
    runs = (pairs[:, k : k + 32] for k in range(0, pairs.shape[1], 32))
    return b"".join(run.tobytes() for run in runs)


def _pack_int8(x: Floats, steps: bool) -> bytes:
    """One group of 32 after the other; steps: of 4 columns, one after the other for all rows."""
    done, rows = quantize_rows(x), len(x)
    quants = done.quants.reshape(rows, -1, 32)
    parts = []
    for g in range(quants.shape[1]):
        q = quants[:, g]
        ordered = q.reshape(rows, 8, 4).transpose(1, 0, 2) if steps else q
        parts += [ordered.astype(np.int8).tobytes()]
        parts += [done.scales[:, g].tobytes(), (-128 * q.sum(1)).astype(np.int32).tobytes()]
        parts += [(-128 * q[:, :16].sum(1)).astype(np.int32).tobytes(), done.am[:, g].tobytes()]
    return b"".join(parts)


def quantize(isa: str, x: Floats, kind: str) -> bytes:
    """The packed rows, with NaNs as the kernel writes them (0x7fc00000; float rows keep theirs)."""
    tiled = isa.startswith("amx")
    blocks = [x[i : i + BLOCK] for i in range(0, len(x), BLOCK)]
    if tiled and kind == "A32" and len(x) >= 2 * BLOCK:
        return b"".join(_pack_int8(block, steps=False) for block in blocks)
    if tiled and kind == "ABF16":
        return b"".join(map(_pack_bf16, blocks))
    return b"".join(_pack_tile(isa, x[rows.start : rows.stop], kind) for rows in tiles_of(len(x)))
