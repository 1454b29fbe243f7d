"""Rows quantised for a matmul, on every ISA level: as the twin, and within their rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from tests.kernels import quantize_twin
from tests.kernels.exact import F32
from tests.kernels.levels import every_isa
from tests.kernels.matmul_case import EPS, normal

pytestmark = every_isa
EDGES = [
    0.0, -0.0, 1e-45, -3e-39, 9.9e-31, 1.01e-30, 1e-20, 1.0, -1.0, 0.5, 1.00390625, 1.0078125,
    -1.9999999, 63.5, 126.5, 127.0, 1e38, 3.4e38, -3.4028235e38, np.inf, -np.inf, np.nan,
]  # fmt: skip


@pytest.mark.parametrize("kind", ["A32", "ABF16", "ABF16X2", "AF32"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_quantize_equals_its_twin(isa: str, kind: str, data: st.DataObject) -> None:
    tokens, groups = (
        data.draw(st.one_of(st.integers(1, 20), st.integers(32, 52))),
        data.draw(st.integers(1, 10)),
    )
    cols = 32 * groups if kind in ("A32", "ABF16X2") else data.draw(st.integers(1, 100))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = normal(rng, tokens, cols) * F32(10.0 ** rng.integers(-36, 30))
    for _ in range(data.draw(st.integers(0, 12))):
        x[rng.integers(tokens), rng.integers(cols)] = data.draw(st.sampled_from(EDGES))
    packed = quantize_twin.quantize(isa, x, kind)
    assert native.quantize(isa, x, kind) == packed
    row_cut = data.draw(st.integers(0, tokens), "row cut")
    column_cut = 32 * data.draw(st.integers(0, cols // 32), "groups before the column cut")
    assert native.quantize(isa, x, kind, row_cut=row_cut, column_cut=column_cut) == packed


def test_a_group_quantised_by_hand(isa: str) -> None:
    """-2 is the largest: scale 2/127, and 1 becomes 63.5, which rounds to the even 64."""
    x = np.zeros((1, 32), F32)
    x[0, [0, 1, 17]] = [1.0, -2.0, 0.5]
    raw = native.quantize(isa, x, "A32")
    assert np.frombuffer(raw, np.int8, 32)[[0, 1, 17, 31]].tolist() == [64, -127, 32, 0]
    scale, am = np.frombuffer(raw, F32)[[8, 11]]
    assert (scale, am) == (F32(2) / F32(127), scale * F32(-31))
    assert np.frombuffer(raw, np.int32)[[9, 10]].tolist() == [31 * 128, 63 * 128]


@pytest.mark.parametrize("value", [1e38, 3.4028235e38, -3.4028235e38, 1e-29])
def test_large_and_small_groups_keep_their_size(isa: str, value: float) -> None:
    x = np.full((2, 32), value, F32)
    quants = np.frombuffer(native.quantize(isa, x, "A32"), np.int8, 64)
    assert set(quants.tolist()) == {127 if value > 0 else -127}
    scale = np.frombuffer(native.quantize(isa, x, "A32"), F32)[16]
    assert abs(float(scale) * 127 / abs(float(F32(value))) - 1) < 3 * EPS


@pytest.mark.parametrize("value", [0.0, 9.9e-31, 1e-45, -1e-38])
def test_groups_below_the_smallest_size_are_zero(isa: str, value: float) -> None:
    assert not any(native.quantize(isa, np.full((3, 64), value, F32), "A32"))


def test_unknown_kinds_and_rows_of_no_whole_groups_are_refused(isa: str) -> None:
    with pytest.raises(ValueError, match="kind: expected A32, ABF16, ABF16X2 or AF32, got A8"):
        native.quantize(isa, np.zeros((3, 64), F32), "A8")
    with pytest.raises(ValueError, match="x: expected a multiple of 32 columns, got 33"):
        native.quantize(isa, np.zeros((2, 33), F32), "ABF16X2")
