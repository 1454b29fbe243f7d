"""The words of simd.h over whole vectors, values to give them, and how results are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from octavo.kernels import native
from tests.kernels.exact import F32, Floats, check_bits
from tests.kernels.guard import Scalar

FLT_MAX = float(np.finfo(F32).max)
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -0.49999997,
     3.0e-39, -3.0e-39, 1.4e-45, -1.4e-45, 1.17549435e-38,
     8388607.5, 8388608.0, 8388609.0, -8388607.5,
     2147483520.0, 2147483648.0, -2147483648.0, -2147484000.0, 4.0e9,
     1.0e38, -1.0e38, FLT_MAX, -FLT_MAX, np.inf, -np.inf, np.nan],
    dtype=F32,
)  # fmt: skip


def as_vectors(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Any array as (vectors, 64) bytes, the last vector filled up with zeros."""
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    padded = np.zeros(-(-raw.size // 64) * 64, np.uint8)
    padded[: raw.size] = raw
    return padded.reshape(-1, 64)


def in_front(values: ArrayLike) -> NDArray[Any]:
    """(n,) to (n, 16): each value at the front of a vector of its own."""
    first = np.asarray(values)
    lanes = 64 // first.itemsize
    return np.concatenate([first[:, None], np.zeros((first.size, lanes - 1), first.dtype)], axis=1)


def run(
    isa: str, word: str, dtype: type[Scalar], a: NDArray[Any], *more: NDArray[Any],
    out: NDArray[np.uint8] | None = None,
) -> NDArray[Scalar]:  # fmt: skip
    """One word over whole vectors; missing arguments are zeros. Returns (vectors, lanes)."""
    zeros = np.zeros_like(as_vectors(a))
    arguments = [*map(as_vectors, (a, *more)), zeros, zeros][:3]
    result = zeros.copy() if out is None else out
    native.simd_word(isa, word, result, *arguments)
    return result.view(dtype)


def pairs(values: NDArray[Scalar]) -> tuple[NDArray[Scalar], NDArray[Scalar]]:
    """Every value against every value, as two arrays of whole vectors."""
    a, b = np.meshgrid(values, values, indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def check(got: NDArray[Any], want: NDArray[Any]) -> None:
    """Floats bit for bit, but any NaN for another; beyond the end of `want` may be anything."""
    found = got.reshape(-1)[: want.size]
    if found.dtype == F32:
        check_bits(found, want)
    else:
        np.testing.assert_array_equal(found, want)


def random_floats(seed: int, count: int = 4096) -> Floats:
    """Bit patterns drawn evenly: every exponent, denormals, infinities and NaNs among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, count, dtype=np.uint32).view(F32)
