"""The logarithm: its twin's error, the twin beside what log-sum-exp makes of it, its edges."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pytest

from octavo.kernels import available_isas, native
from tests.kernels.exact import F32, natural_log

MAX_ULPS = 2  # as log.h states


def spread() -> list[float]:
    """From 1 on: near it, evenly over exponents, and whole numbers, as of steps and of sums."""
    rng = np.random.default_rng(1)
    near = 1 + np.exp2(-rng.uniform(0, 52, 1000))
    wide = np.exp2(rng.uniform(0, 1000, 1000))
    return [float(x) for x in (*near, *wide, *range(1, 2000), 2.0**30, 2.0**49)]


def test_error_in_ulps() -> None:
    with decimal.localcontext(decimal.Context(prec=60)):
        for x in spread():
            got, exact = natural_log(x), decimal.Decimal(x).ln()
            error = abs(decimal.Decimal(got) - exact)
            assert error <= MAX_ULPS * decimal.Decimal(math.ulp(float(exact))), x


@pytest.mark.parametrize("isa", available_isas())
def test_log_sum_exp_is_its_twin_bit_for_bit(isa: str) -> None:
    for x in np.array([each for each in spread() if each < 1e38], F32):
        tile = np.zeros(1, F32), np.array([x], F32), np.zeros(1, np.int32)
        assert native.merge_summaries(isa, *tile)[3] == F32(natural_log(float(x))), x


@pytest.mark.parametrize(("x", "want"), [(1, 0), (0, -math.inf), (math.inf, math.inf)])
def test_edges(x: float, want: float) -> None:
    tile = np.zeros(1, F32), np.array([x], F32), np.zeros(1, np.int32)
    for isa in available_isas():
        assert native.merge_summaries(isa, *tile)[3] == natural_log(x) == want
