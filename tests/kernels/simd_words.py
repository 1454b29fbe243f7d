"""The words of simd.h over whole vectors, values to give them, and how results are compared."""

from __future__ import annotations

import numpy as np

from octavo.kernels import native

F32 = np.float32
FLT_MAX = float(np.finfo(F32).max)
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.49999997,
     3.0e-39, -3.0e-39, 1.4e-45, -1.4e-45, 1.17549435e-38,
     8388607.5, 8388608.0, 8388609.0, -8388607.5,
     2147483520.0, 2147483648.0, -2147483648.0, -2147484000.0, 4.0e9,
     1.0e38, -1.0e38, FLT_MAX, -FLT_MAX, np.inf, -np.inf, np.nan],
    dtype=F32,
)  # fmt: skip


def as_vectors(values: np.ndarray) -> np.ndarray:
    """Any array as (vectors, 64) bytes, the last vector filled up with zeros."""
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    padded = np.zeros(-(-raw.size // 64) * 64, np.uint8)
    padded[: raw.size] = raw
    return padded.reshape(-1, 64)


def run(isa, word, dtype, a, b=None, c=None, out=None):
    """One word over whole vectors; missing arguments are zeros. Returns (vectors, lanes)."""
    first = as_vectors(a)
    others = [np.zeros_like(first) if x is None else as_vectors(x) for x in (b, c)]
    result = np.zeros_like(first) if out is None else out
    native.simd_word(isa, word, result, first, *others)
    return result.view(dtype)


def pairs(values):
    """Every value against every value, as two arrays of whole vectors."""
    a, b = np.meshgrid(values, values, indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def check_floats(got, want):
    got, want = got.reshape(-1)[: want.size].astype(F32), want.astype(F32)
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    where = np.flatnonzero(~same)
    assert where.size == 0, f"lane {where[0]}: got {got[where[0]]!r}, want {want[where[0]]!r}"


def check_ints(got, want):
    np.testing.assert_array_equal(got.reshape(-1)[: want.size], want)


def random_floats(seed, count=4096):
    """Bit patterns drawn evenly: every exponent, denormals, infinities and NaNs among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, count, dtype=np.uint32).view(F32)
