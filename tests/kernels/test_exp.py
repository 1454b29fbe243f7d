"""The kernels' 2^x on every level: its error, its edges, and its numpy twin."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import available_isas, native
from tests.kernels.exact import exp2

pytestmark = pytest.mark.parametrize("isa", available_isas())
F32 = np.float32
MAX_RELATIVE_ERROR = 2.5e-7  # as exp.h states


def run(isa, word, x):
    padded = np.zeros(-(-len(x) // 16) * 16, F32)
    padded[: len(x)] = x
    vectors = padded.view(np.uint8).reshape(-1, 64)
    out, unused = np.zeros_like(vectors), np.zeros_like(vectors)
    native.simd_word(isa, word, out, vectors, unused, unused)
    return out.reshape(-1).view(F32)[: len(x)]


def dense(low, high, count):
    """Evenly spread values, and the floats around every half (where the reduction turns)."""
    halves = np.arange(low, high, 0.5).astype(F32)
    return np.concatenate(
        [
            np.linspace(low, high, count).astype(F32),
            halves,
            np.nextafter(halves, F32(np.inf)),
            np.nextafter(halves, F32(-np.inf)),
        ]
    ).clip(low, high)


@pytest.mark.parametrize("word", ["exp2_poly", "exp2_below_127"])
def test_relative_error_over_the_whole_range(isa, word):
    x = dense(-126.0, 127.0, 400_000)
    got, exact = run(isa, word, x).astype(np.float64), np.exp2(x.astype(np.float64))
    error = np.abs(got - exact) / exact
    assert error.max() < MAX_RELATIVE_ERROR, f"x={x[error.argmax()]!r}: {error.max():.3g}"


def test_whole_powers_are_exact(isa):
    n = np.arange(-126, 128).astype(F32)
    np.testing.assert_array_equal(run(isa, "exp2_poly", n), np.ldexp(F32(1), n.astype(int)))


def test_edges(isa):
    below = np.nextafter(F32(-126), F32(-np.inf))
    x = np.array([0.0, -0.0, below, -149.0, -1e30, -np.inf], F32)
    for word in ("exp2_poly", "exp2_below_127"):
        assert run(isa, word, x).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        assert np.isnan(run(isa, word, np.array([np.nan], F32)))[0]
    large = np.array([127.0, 127.4, 128.0, 1e30, np.inf], F32)
    assert run(isa, "exp2_poly", large).tolist() == [2.0**127] * 5


def test_no_denormals(isa):
    x = dense(-130.0, -124.0, 100_000)
    got = run(isa, "exp2_below_127", x)
    assert np.all((got == 0) | (got >= 2.0**-126))
    np.testing.assert_array_equal(got == 0, x < -126)


def test_equals_its_twin_bit_for_bit(isa):
    x = np.concatenate([dense(-140.0, 127.0, 100_000), np.linspace(-1e-3, 1e-3, 5001).astype(F32)])
    want = exp2(x, fused=isa != "base")
    np.testing.assert_array_equal(
        run(isa, "exp2_below_127", x).view(np.uint32), want.view(np.uint32)
    )
