"""The kernels' 2^x on every level: its error, its edges, and its numpy twin."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import available_isas
from tests.kernels import simd_words
from tests.kernels.exact import F32, Floats, check_bits, exp2

pytestmark = pytest.mark.parametrize("isa", available_isas())
MAX_RELATIVE_ERROR = 2.5e-7  # as exp.h states


def run(isa: str, word: str, x: Floats) -> Floats:
    return simd_words.run(isa, word, F32, x).reshape(-1)[: len(x)]


def dense(low: float, high: float, count: int) -> Floats:
    """Evenly spread values, and the floats around every half (where the reduction turns)."""
    halves = np.arange(low, high, 0.5).astype(F32)
    around = [np.nextafter(halves, F32(end)) for end in (np.inf, -np.inf)]
    even = np.linspace(low, high, count).astype(F32)
    return np.concatenate([even, halves, *around]).clip(F32(low), F32(high))


@pytest.mark.parametrize("word", ["exp2_poly", "exp2_below_127"])
def test_relative_error_over_the_whole_range(isa: str, word: str) -> None:
    x = dense(-126.0, 127.0, 400_000)
    got, exact = run(isa, word, x).astype(np.float64), np.exp2(x.astype(np.float64))
    error = np.abs(got - exact) / exact
    assert error.max() < MAX_RELATIVE_ERROR, f"x={x[error.argmax()]!r}: {error.max():.3g}"


def test_whole_powers_are_exact(isa: str) -> None:
    n = np.arange(-126, 128).astype(F32)
    np.testing.assert_array_equal(run(isa, "exp2_poly", n), np.ldexp(F32(1), n.astype(int)))


def test_edges(isa: str) -> None:
    below = np.nextafter(F32(-126), F32(-np.inf))
    x = np.array([0.0, -0.0, below, -149.0, -1e30, -np.inf], F32)
    for word in ("exp2_poly", "exp2_below_127"):
        assert run(isa, word, x).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        assert np.isnan(run(isa, word, np.array([np.nan], F32)))[0]
    large = np.array([127.0, 127.4, 128.0, 1e30, np.inf], F32)
    assert run(isa, "exp2_poly", large).tolist() == [2.0**127] * 5


def test_no_denormals(isa: str) -> None:
    x = dense(-130.0, -124.0, 100_000)
    got = run(isa, "exp2_below_127", x)
    assert np.all((got == 0) | (got >= 2.0**-126))
    np.testing.assert_array_equal(got == 0, x < -126)


def test_equals_its_twin_bit_for_bit(isa: str) -> None:
    x = np.concatenate([dense(-140.0, 127.0, 100_000), np.linspace(-1e-3, 1e-3, 5001).astype(F32)])
    want = exp2(x, fused=isa != "base")
    check_bits(run(isa, "exp2_below_127", x), want)
