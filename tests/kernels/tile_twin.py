"""The dots of tile registers in numpy, to the bit, as the processor's manual writes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.kernels.exact import F32, Floats, rounded_to_odd

Words = NDArray[np.uint32]
_LEAST = 2.0**-126  # the least that is no denormal


def without_denormals(values: Floats) -> Floats:
    return np.where(np.abs(values) < _LEAST, np.copysign(F32(0), values), values)


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Floats:
    """a*b + c rounded once; denormals are 0, those that come in and those that would come out.

    Whether a result is one is seen after it was rounded as if exponents had no end.
    """
    a, b, c = (without_denormals(np.asarray(v, F32)) for v in (a, b, c))
    exact = rounded_to_odd(a, b, c)
    with np.errstate(all="ignore"):
        denormal = np.abs((exact * 2.0**64).astype(F32)) < _LEAST * 2.0**64
        return np.where(denormal, np.copysign(0, exact), exact).astype(F32)


def dot_s8(c: Words, a: Words, b: Words) -> Words:
    """(M, N) + (M, K) x (K, N), four bytes in each word of A and B."""
    left = a.view(np.int8).astype(np.int64)  # (M, 4 K)
    right = b.view(np.int8).reshape(*b.shape, 4).transpose(0, 2, 1).reshape(-1, b.shape[1])
    sums = c.view(np.int32) + left @ right.astype(np.int64)
    return sums.astype(np.int32).view(np.uint32)


def dot_bf16(c: Words, a: Words, b: Words) -> Words:
    """The same of two bf16 in each word: a chain of the low ones, a chain of the high ones."""
    chains = [np.zeros(c.shape, F32), np.zeros(c.shape, F32)]
    for k in range(a.shape[1]):
        for i, part in enumerate((_low, _high)):
            chains[i] = fma(part(a[:, k, None]), part(b[None, k]), chains[i])
    return fma(F32(1), c.view(F32), fma(F32(1), chains[0], chains[1])).view(np.uint32)


def _low(words: Words) -> Floats:
    return (words << np.uint32(16)).view(F32)


def _high(words: Words) -> Floats:
    return (words & np.uint32(0xFFFF0000)).view(F32)
