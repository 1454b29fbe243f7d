"""The dots of tile registers in numpy, to the bit, as the processor's manual writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.kernels.exact import F32, Floats, fma32, rounded_to_odd

Words = NDArray[np.uint32]
_LEAST = 2.0**-126  # the least that is no denormal


def without_denormals(values: Floats) -> Floats:
    return np.where(np.abs(values) < _LEAST, np.copysign(F32(0), values), values)


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Floats:
    """a*b + c rounded once; denormals are 0, those that come in and those that would come out.

    Whether a result is one is seen after it was rounded as if exponents had no end.
    """
    a, b, c = (without_denormals(np.asarray(v, F32)) for v in (a, b, c))
    once = fma32(a, b, c)
    if not ((np.abs(once) <= _LEAST) & (once != 0)).any():
        return once
    exact = rounded_to_odd(a, b, c)
    with np.errstate(all="ignore"):
        denormal = np.abs((exact * 2.0**64).astype(F32)) < _LEAST * 2.0**64
        return np.where(denormal, np.copysign(0, exact), exact).astype(F32)


def dot_s8(c: Words, a: Words, b: Words) -> Words:
    """(M, N) + (M, K) x (K, N), four signed bytes in each word of A and B."""
    return _dot_bytes(c, a, b.view(np.int8))


def dot_s8u8(c: Words, a: Words, b: Words) -> Words:
    """The same of unsigned bytes in B."""
    return _dot_bytes(c, a, b.view(np.uint8))


def _dot_bytes(c: Words, a: Words, b: NDArray[np.integer[Any]]) -> Words:
    left = a.view(np.int8).astype(np.int64)  # (M, 4 K)
    right = b.reshape(len(b), -1, 4).transpose(0, 2, 1).reshape(-1, c.shape[1])
    sums = c.view(np.int32) + left @ right.astype(np.int64)
    return sums.astype(np.int32).view(np.uint32)


def dot_bf16(c: Words, a: Words, b: Words) -> Words:
    """The same of two bf16 in each word."""
    rows, columns = (np.stack([_low(w), _high(w)], axis=-1) for w in (a, b.T))
    left, right = (v.reshape(len(v), -1) for v in (rows, columns))
    return add_dots(c.view(F32), left[:, None], right[None]).view(np.uint32)


def add_dots(c: Floats, a: Floats, b: Floats) -> Floats:
    """(M, N) + the sums over K of a (M, 1, K) times b (1, N, K), or of either shape in full: one
    chain of the even k, one of the odd."""
    chains = [np.zeros(c.shape, F32), np.zeros(c.shape, F32)]
    for k in range(a.shape[-1]):
        chains[k % 2] = fma(a[..., k], b[..., k], chains[k % 2])
    return fma(F32(1), c, fma(F32(1), *chains))


def _low(words: Words) -> Floats:
    return (words << np.uint32(16)).view(F32)


def _high(words: Words) -> Floats:
    return (words & np.uint32(0xFFFF0000)).view(F32)
