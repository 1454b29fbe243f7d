"""Rows quantised for a matmul, on every ISA level: as the twin, and within their rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from tests.kernels import quantize_twin
from tests.kernels.matmul_case import EPS, every_isa

EDGES = [
    0.0,
    -0.0,
    1e-45,
    -3e-39,
    9.9e-31,
    1.01e-30,
    1e-20,
    1.0,
    -1.0,
    0.5,
    63.5,
    1e38,
    -3.4028235e38,
    127.0,
    126.5,
]


@every_isa
@pytest.mark.parametrize("kind", ["A32", "ABF16", "AF32"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_quantize_equals_its_twin(isa, kind, data):
    tokens = data.draw(st.integers(1, 20))
    cols = data.draw(st.integers(1, 5)) * 32 if kind == "A32" else data.draw(st.integers(1, 100))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((tokens, cols)).astype(np.float32) * np.float32(
        10.0 ** rng.integers(-36, 30)
    )
    for _ in range(data.draw(st.integers(0, 12))):
        edge = data.draw(st.sampled_from([*EDGES, np.inf, -np.inf, np.nan]))
        x[rng.integers(tokens), rng.integers(cols)] = edge
    assert native.quantize(isa, x, kind) == quantize_twin.quantize(isa, x, kind)


@every_isa
def test_a_group_quantised_by_hand(isa):
    """-2 is the largest: scale 2/127, and 1 becomes 63.5, which rounds to the even 64."""
    x = np.zeros((1, 32), np.float32)
    x[0, [0, 1, 17]] = [1.0, -2.0, 0.5]
    raw = native.quantize(isa, x, "A32")
    assert np.frombuffer(raw, np.int8, 32)[[0, 1, 17, 31]].tolist() == [64, -127, 32, 0]
    scale, am = np.frombuffer(raw, np.float32)[[8, 11]]
    assert (scale, am) == (np.float32(2) / np.float32(127), scale * np.float32(-31))
    assert np.frombuffer(raw, np.int32)[[9, 10]].tolist() == [31, 63]


@every_isa
@pytest.mark.parametrize("value", [1e38, 3.4028235e38, -3.4028235e38, 1e-29])
def test_large_and_small_groups_keep_their_size(isa, value):
    x = np.full((2, 32), value, np.float32)
    quants = np.frombuffer(native.quantize(isa, x, "A32"), np.int8, 64)
    assert set(quants.tolist()) == {127 if value > 0 else -127}
    scale = np.frombuffer(native.quantize(isa, x, "A32"), np.float32)[16]
    assert abs(float(scale) * 127 / abs(float(np.float32(value))) - 1) < 3 * EPS


@every_isa
@pytest.mark.parametrize("value", [0.0, 9.9e-31, 1e-45, -1e-38])
def test_groups_below_the_smallest_size_are_zero(isa, value):
    assert not any(native.quantize(isa, np.full((3, 64), value, np.float32), "A32"))
