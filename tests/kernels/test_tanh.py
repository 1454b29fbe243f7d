"""The kernels' tanh on every level: its error, its edges, and its numpy twin."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import available_isas
from tests.kernels import simd_words
from tests.kernels.exact import F32, Floats, check_bits, tanh

pytestmark = pytest.mark.parametrize("isa", available_isas())
MAX_ULPS = 3.0  # as tanh.h states


def run(isa: str, x: Floats) -> Floats:
    return simd_words.run(isa, "tanh_poly", F32, x).reshape(-1)[: len(x)]


def spread() -> Floats:
    """Evenly over what is not yet 1, and evenly over exponents from 2^-120 on; both signs."""
    even, small = np.linspace(0, 12, 200_001), np.exp2(np.linspace(-120, 4, 200_001))
    x = np.concatenate([even, small]).astype(F32)
    return np.concatenate([x, -x])


def test_error_in_ulps(isa: str) -> None:
    x = spread()
    got, exact = run(isa, x).astype(np.float64), np.tanh(x.astype(np.float64))
    error = np.abs(got - exact) / np.spacing(np.abs(exact).astype(F32)).astype(np.float64)
    assert error.max() <= MAX_ULPS, f"x={x[error.argmax()]!r}: {error.max():.3g} ulps"


def test_it_is_odd_and_never_falls_and_ends_at_one(isa: str) -> None:
    x = np.linspace(0, 12, 200_001).astype(F32)
    got = run(isa, x)
    check_bits(run(isa, -x), -got)
    assert np.all(np.diff(got) >= 0)
    assert got[-1] == 1.0


def test_edges(isa: str) -> None:
    x = np.array([0.0, -0.0, 40.0, -40.0, 3e38, -3e38, np.inf, -np.inf], F32)
    check_bits(run(isa, x), np.array([0.0, -0.0, 1, -1, 1, -1, 1, -1], F32))
    assert np.isnan(run(isa, np.array([np.nan], F32)))[0]


def test_equals_its_twin_bit_for_bit(isa: str) -> None:
    x = np.concatenate([spread(), simd_words.random_floats(1), simd_words.EDGES])
    check_bits(run(isa, x), tanh(x, fused=isa != "base"))
