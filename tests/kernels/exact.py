"""Float32 to the bit: the fused multiply-add that numpy lacks, and a comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fma32(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """a*b + c of float32 values, rounded once to float32.

    The product is exact in float64. The sum is rounded to odd there: TwoSum gives its error, and an
    inexact even result steps one unit towards the exact sum. With 53 >= 24 + 2 bits the second
    rounding, to float32, is then the only one that shows.
    """
    with np.errstate(all="ignore"):
        x, y, addend = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b, c))
        product = x * y
        total = np.asarray(product + addend)
        virtual = total - product
        error = (product - (total - virtual)) + (addend - virtual)
        even = (total.view(np.int64) & 1) == 0
        towards = np.where(error > 0, np.inf, -np.inf)
        inexact = np.isfinite(total) & (error != 0) & even
        return np.where(inexact, np.nextafter(total, towards), total).astype(np.float32)


def check_bits(got: ArrayLike, want: ArrayLike) -> None:
    """Equal bit for bit, except that any NaN equals any other."""
    got, want = np.ravel(got).astype(np.float32), np.ravel(want).astype(np.float32)
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    where = np.flatnonzero(~same)
    assert where.size == 0, f"[{where[0]}]: got {got[where[0]]!r}, want {want[where[0]]!r}"
