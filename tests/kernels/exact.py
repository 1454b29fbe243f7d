"""Floats to the bit, as the kernels compute: fused multiply-add, bf16, sums as trees, 2^x, tanh,
log of float64; and a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

F32 = np.float32
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Join = Callable[[Floats, Floats], Floats]
# 2^f for |f| <= 0.5, highest power first; the last is 2^0.
_EXP2 = ("0x1.5bba14p-10", "0x1.3cea88p-7", "0x1.c6b752p-5", "0x1.ebf9bcp-3", "0x1.62e42ap-1", "1")
EXP2 = [F32(float.fromhex(c)) for c in _EXP2]
# (2^f - 1) / f, highest power first.
_TANH = ("0x1.42985ep-13", "0x1.5ef136p-10", "0x1.3b2c3cp-7", "0x1.c6afa4p-5", "0x1.ebfbdep-3",
         "0x1.62e43p-1")  # fmt: skip
TANH = [F32(float.fromhex(c)) for c in _TANH]
TANH_SCALE = F32(float.fromhex("-0x1.715476p+1"))


def natural_log(x: float) -> float:
    """log.h's, in Python's own floats."""
    if x == 0 or not x < math.inf:
        return x if x else -math.inf
    m, n = math.frexp(x)
    if m < float.fromhex("0x1.6a09e667f3bcdp-1"):
        m, n = 2 * m, n - 1
    s = (m - 1) / (m + 1)
    z, total = s * s, 0.0
    for odd in range(21, 1, -2):
        total = (total + 1 / odd) * z
    high, low = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
    return n * high + (n * low + (2 * s + 2 * s * total))


def fma32(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Floats:
    """a*b + c of float32 values, rounded once to float32.

    A sum rounded to float64 and then to float32 is that, but for a sum that lies halfway between
    two float32: of a normal one only bit 28 of 0 to 28 is set. There the rounding to odd decides.
    """
    with np.errstate(all="ignore"):
        x, y, addend = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
        product = x * y
        total = np.asarray(product + addend)
        once = total.astype(np.float32)
        unsure = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
        unsure |= (np.abs(total) < 2.0**-126) & (total != 0)
        if unsure.any():
            terms = (np.broadcast_to(v, total.shape)[unsure] for v in (product, addend))
            once = np.asarray(once)
            once[unsure] = sum_to_odd(*terms).astype(np.float32)
        return once


def rounded_to_odd(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Doubles:
    """a*b + c of float32 values in float64, where the product is exact, rounded to odd."""
    with np.errstate(all="ignore"):
        x, y, addend = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
        return sum_to_odd(x * y, addend)


def sum_to_odd(product: Doubles, addend: Doubles) -> Doubles:
    """TwoSum gives the error of the sum, and an inexact even result steps one unit towards the
    exact sum: with 53 >= 24 + 2 bits rounded so, the rounding to float32 is the only one that
    shows."""
    total = np.asarray(product + addend)
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = (total.view(np.int64) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    inexact = np.isfinite(total) & (error != 0) & even
    return np.where(inexact, np.nextafter(total, towards), total)


def fma(a: Floats | F32, b: Floats | F32, c: Floats | F32, fused: bool) -> Floats:
    """a*b + c as a level does it: rounded once, or (base) twice."""
    with np.errstate(all="ignore"):
        return fma32(a, b, c) if fused else np.asarray(a * b + c, F32)


def to_bf16(values: Floats) -> NDArray[np.uint16]:
    """Nearest, ties to even; every NaN becomes 0x7fc0."""
    bits = np.ascontiguousarray(values, F32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(F32)


def tree(values: Floats, join: Join = np.add) -> Floats:
    """Join the halves of the last axis (a power of two) until one is left: reduce_add of simd.h."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = join(values[..., :half], values[..., half:])
    return values[..., 0]


def exp2(x: Floats, fused: bool) -> Floats:
    """exp2_below_127 of exp.h: 2^n * p(f), exactly 0 below -126."""
    with np.errstate(all="ignore"):
        n = np.rint(x)
        p = np.full_like(x, EXP2[0])
        for c in EXP2[1:]:
            p = fma(p, x - n, c, fused)
        whole = np.where(np.isfinite(n), np.clip(n, -126, 127), 0).astype(np.int32)
        return np.where(x < -126, F32(0), np.where(np.isnan(x), x, np.ldexp(p, whole)))


def tanh(x: Floats, fused: bool) -> Floats:
    """tanh_poly of tanh.h: -m / (2 + m) of m = 2^y - 1, with x's sign."""
    with np.errstate(all="ignore"):
        y = np.maximum(np.abs(x) * TANH_SCALE, F32(-64))
        n = np.rint(y)
        p = np.full_like(x, TANH[0])
        for c in TANH[1:]:
            p = fma(p, y - n, c, fused)
        power = np.ldexp(F32(1), np.where(np.isnan(n), 0, n).astype(np.int32))
        m = fma(p * (y - n), power, power - F32(1), fused)
        return np.copysign((F32(0) - m) / (F32(2) + m), x)


def check_bits(got: ArrayLike, want: ArrayLike) -> None:
    """Equal bit for bit, except that any NaN equals any other; `same_bits` is without exception."""
    got, want = (np.ravel(each).astype(F32) for each in (got, want))
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    where = np.flatnonzero(~same)
    assert where.size == 0, f"[{where[0]}]: got {got[where[0]]!r}, want {want[where[0]]!r}"


def same_bits(got: Floats, want: Floats) -> None:
    different = np.argwhere(got.view(np.uint32) != np.ascontiguousarray(want).view(np.uint32))
    assert len(different) == 0, f"{len(different)} differ, first at {different[0]}"
