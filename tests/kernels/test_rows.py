"""RMSNorm, RoPE, SiLU times up, scaling: every level against its numpy twin, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from tests.kernels import row_ops
from tests.kernels import rows_twin as twin
from tests.kernels.exact import check_bits
from tests.kernels.guard import guarded

F32 = np.float32
each_isa = pytest.mark.parametrize("isa", available_isas())
lengths = st.integers(1, 700)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def normal(rng, *shape, spread=0):
    """Normal float32 values; `spread` multiplies each by a power of ten from -spread to spread."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-spread, spread + 1, shape)
    return values.astype(F32)


def rms_norm(isa, x, weight, eps=1e-5):
    out = guarded(np.full(x.size, np.nan, F32))
    row_ops.rms_norm(isa, out, guarded(x), guarded(weight), eps)
    return out


@each_isa
@quick
@given(n=lengths, seed=seeds, spread=st.sampled_from([0, 3]))
def test_rms_norm_is_its_twin(isa, n, seed, spread):
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, n, spread=spread), normal(rng, n)
    check_bits(rms_norm(isa, x, weight), twin.rms_norm(isa, x, weight, 1e-5))


@each_isa
@pytest.mark.parametrize("n", [1, 15, 16, 17, 576, 4096])
def test_rms_norm_is_near_the_exact_norm(isa, n):
    rng = np.random.default_rng(n)
    x, weight = normal(rng, n), normal(rng, n)
    exact = x / np.sqrt(np.mean(x.astype(np.float64) ** 2) + 1e-5) * weight
    # n/16 + 4 roundings of a sum of squares, halved by the root, then 4 more
    bound = ((n / 16 + 4) / 2 + 4) * 2.0**-23
    assert np.all(np.abs(rms_norm(isa, x, weight) - exact) <= bound * np.abs(exact))


@each_isa
def test_rms_norm_may_write_over_its_input(isa):
    rng = np.random.default_rng(0)
    x, weight = normal(rng, 77), normal(rng, 77)
    want = rms_norm(isa, x, weight)
    row_ops.rms_norm(isa, x, x, weight, 1e-5)
    check_bits(x, want)


@each_isa
def test_rms_norm_of_zeros_overflow_and_nan(isa):
    weight = np.ones(20, F32)
    check_bits(rms_norm(isa, np.zeros(20, F32), weight), np.zeros(20))
    huge = np.full(20, 1e38, F32)  # squares overflow: 1 / inf = 0, never NaN
    check_bits(rms_norm(isa, huge, weight), np.zeros(20))
    huge[3] = np.nan
    assert np.isnan(rms_norm(isa, huge, weight)).all()


def rope(isa, x, cos, sin, style):
    out = guarded(x)
    row_ops.rope(isa, out, guarded(cos), guarded(sin), style)
    return out


@each_isa
@pytest.mark.parametrize("style", [0, 1])
@quick
@given(heads=st.integers(1, 9), half=st.integers(0, 70), rest=st.integers(0, 20), seed=seeds)
def test_rope_is_its_twin_and_leaves_the_rest_alone(isa, style, heads, half, rest, seed):
    rng = np.random.default_rng(seed)
    x, angle = normal(rng, heads, max(2 * half + rest, 1)), rng.uniform(-7, 7, half)
    cos, sin = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
    got = rope(isa, x, cos, sin, style)
    check_bits(got, twin.rope(isa, x, cos, sin, style))
    check_bits(got[:, 2 * half :], x[:, 2 * half :])


@each_isa
def test_rope_by_a_quarter_turn_shows_the_pairs(isa):
    x = np.arange(1, 9, dtype=F32).reshape(1, 8)
    cos, sin = np.zeros(3, F32), np.ones(3, F32)
    assert rope(isa, x, cos, sin, 0).tolist() == [[-2, 1, -4, 3, -6, 5, 7, 8]]
    assert rope(isa, x, cos, sin, 1).tolist() == [[-4, -5, -6, 1, 2, 3, 7, 8]]


@each_isa
@pytest.mark.parametrize("style", [0, 1])
def test_rope_at_position_zero_changes_nothing(isa, style):
    x = normal(np.random.default_rng(1), 3, 64)
    check_bits(rope(isa, x, np.ones(32, F32), np.zeros(32, F32), style), x)


def silu_mul(isa, gate, up):
    out = guarded(np.full(gate.size, np.nan, F32))
    row_ops.silu_mul(isa, out, guarded(gate), guarded(up))
    return out


@each_isa
@quick
@given(n=lengths, seed=seeds, spread=st.sampled_from([0, 2, 30]))
def test_silu_mul_is_its_twin(isa, n, seed, spread):
    rng = np.random.default_rng(seed)
    gate, up = normal(rng, n, spread=spread), normal(rng, n)
    check_bits(silu_mul(isa, gate, up), twin.silu_mul(isa, gate, up))


@each_isa
def test_silu_is_right_over_the_whole_range(isa):
    gate = np.concatenate([np.linspace(-120, 120, 200001), np.geomspace(1e-38, 1e38, 2001)])
    gate = np.concatenate([gate, -gate[200001:]]).astype(F32)
    exact = gate.astype(np.float64) / (1 + np.exp(np.minimum(-gate.astype(np.float64), 700)))
    got = silu_mul(isa, gate, np.ones(gate.size, F32))
    assert np.isfinite(got).all()
    # exp: 2.5e-7, and |gate| * 2^-24 * 2 from rounding its argument; it is 0 below 2^-126
    bound = (1e-6 + np.minimum(np.abs(gate), 200) * 2.0**-23) * np.abs(exact) + 2e-36
    worst = np.argmax(np.abs(got - exact) - bound)
    assert np.abs(got - exact)[worst] <= bound[worst], f"silu({gate[worst]!r}) = {got[worst]!r}"


@each_isa
def test_silu_of_edges(isa):
    gate = np.array([0.0, -0.0, np.inf, 1e38, -1e38, np.nan, 1.0, 2.0], F32)
    up = np.array([3.0, 3.0, 1.0, 1.0, 1.0, 1.0, np.nan, 0.0], F32)
    got = silu_mul(isa, gate, up)
    assert got[[0, 1, 2, 3, 4, 7]].tolist() == [0, 0, np.inf, F32(1e38), 0, 0]
    assert np.isnan(got[5:7]).all()


@each_isa
def test_elementwise_rows_do_not_depend_on_where_they_are_cut(isa):
    rng = np.random.default_rng(2)
    gate, up = normal(rng, 100), normal(rng, 100)
    whole = silu_mul(isa, gate, up)
    for cut in range(101):
        parts = [silu_mul(isa, g, u) for g, u in ((gate[:cut], up[:cut]), (gate[cut:], up[cut:]))]
        check_bits(np.concatenate(parts), whole)
    row_ops.silu_mul(isa, gate, gate, up)
    check_bits(gate, whole)


def scaled(isa, x, factor):
    out = guarded(np.full(x.size, np.nan, F32))
    row_ops.scale(isa, out, guarded(x), factor)
    return out


@each_isa
@quick
@given(n=lengths, seed=seeds, factor=st.floats(width=32, allow_nan=False))
def test_scale_is_its_twin(isa, n, seed, factor):
    x = normal(np.random.default_rng(seed), n, spread=30)
    check_bits(scaled(isa, x, factor), twin.scale(x, factor))


@each_isa
def test_scale_may_write_over_its_input(isa):
    x = normal(np.random.default_rng(3), 77)
    want = scaled(isa, x, 24.0)
    row_ops.scale(isa, x, x, 24.0)
    check_bits(x, want)


@each_isa
@quick
@given(heads=st.integers(1, 9), dim=st.integers(1, 130), seed=seeds)
def test_a_norm_of_heads_norms_each_by_itself(isa, heads, dim, seed):
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, heads, dim, spread=2), normal(rng, dim)
    out = guarded(np.full(x.size, np.nan, F32))
    row_ops.rms_norm(isa, out, guarded(x.reshape(-1)), guarded(weight), 1e-6, heads)
    for got, head in zip(out.reshape(heads, dim), x, strict=True):
        check_bits(got, twin.rms_norm(isa, head, weight, 1e-6))


def test_bad_arguments_are_refused_by_name():
    x, y = np.zeros(8, F32), np.zeros(9, F32)
    with pytest.raises(ValueError, match="weight: expected 8 values, got 9"):
        row_ops.rms_norm("base", x, x, y, 1e-5)
    with pytest.raises(ValueError, match="weight: expected 4 values, got 8"):
        row_ops.rms_norm("base", x, x, x, 1e-5, 2)
    with pytest.raises(ValueError, match="out: expected 8 values, got 9"):
        row_ops.silu_mul("base", y, x, x)
    with pytest.raises(ValueError, match="y: expected 8 values, got 9"):
        row_ops.silu_mul("base", x, x, y)
    with pytest.raises(ValueError, match="y: expected an array, got none"):
        native.row_op("base", "SwiGLU", x, x)
    with pytest.raises(ValueError, match="weight: expected none, got an array"):
        native.row_op("base", "SwiGLU", x, x, y=x, weight=x)
    with pytest.raises(ValueError, match="heads: expected 1 to 0, got 1"):
        row_ops.rms_norm("base", x[:0], x[:0], x[:0], 1e-5)
    with pytest.raises(ValueError, match="heads: expected a divisor of 8, got 3"):
        row_ops.rms_norm("base", x, x, x, 1e-5, 3)
    with pytest.raises(ValueError, match="heads: expected 1 to 1, got 2"):
        native.row_op("base", "Scale", x, x, heads=2)
    with pytest.raises(ValueError, match="cos: expected at most dim/2 values, got 5"):
        row_ops.rope("base", x.reshape(1, 8), y[:5], y[:5], 0)
    with pytest.raises(ValueError, match="sin: expected 4 values, got 3"):
        row_ops.rope("base", x.reshape(1, 8), y[:4], y[:3], 0)
    with pytest.raises(ValueError, match="rope_style: expected 0 to 1, got 2"):
        row_ops.rope("base", x.reshape(1, 8), y[:4], y[:4], 2)
    with pytest.raises(ValueError, match=r"name: expected an op of row_ops\.h, got Matmul"):
        native.row_op("base", "Matmul", x, x)
    with pytest.raises(ValueError, match="isa: expected one of base"):
        row_ops.silu_mul("z80", x, x, x)


@pytest.mark.parametrize("bad", [np.zeros(8), np.zeros(16, F32)[::2], np.zeros((2, 4), F32)])
def test_other_dtypes_strides_and_ranks_are_never_converted(bad):
    good = np.zeros(8, F32)
    with pytest.raises(TypeError):
        row_ops.silu_mul("base", good, bad, good)
    with pytest.raises(TypeError):
        row_ops.rms_norm("base", bad, good, good, 1e-5)
