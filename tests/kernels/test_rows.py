"""Norms, RoPE, SiLU times up, scaling: every level against its numpy twin, bit for bit."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from octavo.program.ops import ActivationKind
from tests.kernels import rows_twin as twin
from tests.kernels.exact import F32, Floats, check_bits
from tests.kernels.row_ops import row_op

pytestmark = pytest.mark.parametrize("isa", available_isas())
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def normal(rng: np.random.Generator, *shape: int, spread: int = 0) -> Floats:
    """Normal float32 values; `spread` multiplies each by a power of ten from -spread to spread."""
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-spread, spread + 1, shape)
    return values.astype(F32)


# 2 sqrt(2 / pi), and that times 0.044715
CLAMPED, UNGATED = (native.ACTIVATIONS.index("clamped_glu"), range(len(get_args(ActivationKind))))
GELU = (2 * np.sqrt(2 / np.pi), 2 * np.sqrt(2 / np.pi) * 0.044715)


def norm(isa: str, x: Floats, weight: Floats, kind: int = 0, bias: Floats | None = None) -> Floats:
    return row_op(isa, "Norm", x, norm_kind=kind, weight=weight, bias=bias, eps=1e-5)


def activate(isa: str, x: Floats, activation: int) -> Floats:
    return row_op(isa, "Activate", x, activation=activation)


def gated(isa: str, gate: Floats, up: Floats, activation: int = 0) -> Floats:
    return row_op(isa, "GatedActivation", gate, y=up, activation=activation)


@quick
@given(
    heads=st.integers(1, 9), n=st.integers(1, 700), seed=seeds, spread=st.sampled_from([0, 2, 30]),
    eps=st.sampled_from([1e-5, 1e-6]), factor=st.floats(width=32, allow_nan=False),
    weighted=st.booleans(), biased=st.booleans(),
)  # fmt: skip
def test_an_op_is_its_twin_and_a_norm_of_heads_norms_each_by_itself(
    isa: str,
    heads: int,
    n: int,
    seed: int,
    spread: int,
    eps: float,
    factor: float,
    weighted: bool,
    biased: bool,
) -> None:
    rng = np.random.default_rng(seed)
    x, y = normal(rng, heads, n, spread=spread), normal(rng, heads, n)
    weight, bias = (normal(rng, n) if has else None for has in (weighted, biased))
    for kind in range(len(native.NORMS)):
        more: dict[str, Any] = {"weight": weight, "bias": bias, "norm_kind": kind}
        norms = row_op(isa, "Norm", x, eps=eps, heads=heads, **more)
        for got, head in zip(norms, x, strict=True):
            check_bits(got, twin.norm(isa, head, weight, bias, eps, kind))
    for kind in range(len(native.ACTIVATIONS)):
        wide = 4 * y
        check_bits(gated(isa, x, wide.reshape(-1), kind), twin.gated(isa, x, wide, kind))
    for kind in UNGATED:
        check_bits(activate(isa, x, kind), twin.activated(isa, x, kind))
    check_bits(row_op(isa, "Add", x, y=y.reshape(-1)), twin.add(x, y))
    check_bits(row_op(isa, "Scale", x, scale=factor), twin.scale(x, factor))
    limit = abs(factor) or 1.0
    check_bits(row_op(isa, "Clamp", x, scale=limit), twin.clamp(x, limit))
    beta, position, original = rng.uniform(0, 1), *(int(n) for n in rng.integers(1, 99999, 2))
    at: dict[str, Any] = {"position": position, "scale": beta, "original": original}
    want = twin.scale_by_position(x, position, beta, original)
    check_bits(row_op(isa, "ScaleByPosition", x, **at), want)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 576, 4096])
def test_rms_norm_is_near_the_exact_norm(isa: str, n: int) -> None:
    x, weight = normal(np.random.default_rng(n), 2, n)
    exact = x / np.sqrt(np.mean(x.astype(np.float64) ** 2) + 1e-5) * weight
    # n/16 + 4 roundings of a sum of squares, halved by the root, then 4 more
    bound = ((n / 16 + 4) / 2 + 4) * 2.0**-23
    assert np.all(np.abs(norm(isa, x, weight) - exact) <= bound * np.abs(exact))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 576, 4096])
@pytest.mark.parametrize("offset", [0, 100])
def test_layer_norm_is_near_the_exact_norm(isa: str, n: int, offset: int) -> None:
    """A mean far above the spread costs bits of what is left when it is taken off, and no more."""
    x, weight, bias = normal(np.random.default_rng(n), 3, n)
    x = x + F32(offset)
    wide = x.astype(np.float64)
    exact = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5) * weight + bias
    got = norm(isa, x, weight, 1, bias)
    rounding = (n / 16 + 8) * 2.0**-23 * (1 + np.abs(wide).max() / np.sqrt(wide.var() + 1e-5))
    assert np.all(np.abs(got - exact) <= rounding * (np.abs(exact) + np.abs(weight)))


@pytest.mark.parametrize("kind", range(len(native.NORMS)))
def test_norms_of_zeros_overflow_and_nan(isa: str, kind: int) -> None:
    weight = np.ones(20, F32)
    check_bits(norm(isa, np.zeros(20, F32), weight, kind), np.zeros(20))
    huge = np.full(20, 1e37, F32)  # squares overflow: 1 / inf = 0, never NaN
    huge[::2] = -1e37
    check_bits(norm(isa, huge, weight, kind) + F32(0), np.zeros(20))
    huge[3] = np.nan
    assert np.isnan(norm(isa, huge, weight, kind)).all()


@pytest.mark.parametrize("name", ["Norm", "Activate", "GatedActivation", "Add", "Scale", "Clamp"])
def test_an_op_may_write_over_its_input(isa: str, name: str) -> None:
    x, other = normal(np.random.default_rng(0), 2, 77)
    more: dict[str, Any] = {
        "Norm": {"weight": other, "bias": other, "eps": 1e-5, "norm_kind": 1},
        "GatedActivation": {"y": other},
        "Activate": {"activation": 1}, "Add": {"y": other}, "Scale": {"scale": 24.0},
        "Clamp": {"scale": 0.5},
    }[name]  # fmt: skip
    check_bits(row_op(isa, name, x, over=True, **more), row_op(isa, name, x, **more))


def rope(isa: str, x: Floats, cos: Floats, sin: Floats, style: int) -> Floats:
    """x: (heads, dim)."""
    return row_op(isa, "Rope", x, over=True, cos=cos, sin=sin, heads=len(x), rope_style=style)


@pytest.mark.parametrize("style", [0, 1])
@quick
@given(heads=st.integers(1, 9), half=st.integers(0, 70), rest=st.integers(0, 20), seed=seeds)
def test_rope_is_its_twin_and_leaves_the_rest_alone(
    isa: str, style: int, heads: int, half: int, rest: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, angle = normal(rng, heads, max(2 * half + rest, 1)), rng.uniform(-7, 7, half)
    cos, sin = np.cos(angle).astype(F32), np.sin(angle).astype(F32)
    got = rope(isa, x, cos, sin, style)
    check_bits(got, twin.rope(isa, x, cos, sin, style))
    check_bits(got[:, 2 * half :], x[:, 2 * half :])


def test_rope_by_a_quarter_turn_shows_the_pairs_and_by_none_changes_nothing(isa: str) -> None:
    x = np.arange(1, 9, dtype=F32).reshape(1, 8)
    cos, sin = np.zeros(3, F32), np.ones(3, F32)
    assert rope(isa, x, cos, sin, 0).tolist() == [[-2, 1, -4, 3, -6, 5, 7, 8]]
    assert rope(isa, x, cos, sin, 1).tolist() == [[-4, -5, -6, 1, 2, 3, 7, 8]]
    x, cos, sin = normal(np.random.default_rng(1), 3, 64), np.ones(32, F32), np.zeros(32, F32)
    for style in (0, 1):
        check_bits(rope(isa, x, cos, sin, style), x)


@pytest.mark.parametrize(("kind", "factor"), [("silu", (1, 0)), ("gelu_tanh", GELU)])
def test_an_activation_is_right_over_the_whole_range(
    isa: str, kind: str, factor: tuple[float, float]
) -> None:
    wide = np.concatenate([np.linspace(-120, 120, 200001), np.geomspace(1e-38, 1e38, 2001)])
    gate = np.concatenate([wide, -wide[200001:]]).astype(F32)
    x = gate.astype(np.float64)
    t = x * (factor[0] + factor[1] * x**2)
    exact = x / (1 + np.exp(np.minimum(-t, 700)))
    got = gated(isa, gate, np.ones(gate.size, F32), native.ACTIVATIONS.index(kind))
    assert np.isfinite(got).all()
    # exp: 2.5e-7, and a few 2^-24 of t from rounding its argument; it is 0 below 2^-126
    bound = (1e-6 + np.minimum(np.abs(t), 200) * 2.0**-22) * np.abs(exact) + 2e-36
    worst = np.argmax(np.abs(got - exact) - bound)
    assert np.abs(got - exact)[worst] <= bound[worst], f"{kind}({gate[worst]!r}) = {got[worst]!r}"


def test_gelu_is_right_to_the_last_bits(isa: str) -> None:
    wide = np.concatenate([np.linspace(-14, 14, 200001), np.geomspace(1e-38, 1e38, 2001)])
    x = np.concatenate([wide, -wide[200001:]]).astype(F32)
    exact = x * np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(np.float64)])
    got = activate(isa, x, native.ACTIVATIONS.index("gelu"))
    assert np.isfinite(got).all()
    ulps = np.where(x >= -1, 7, 8 + np.minimum(x.astype(np.float64) ** 2, 200))  # as phi.h states
    bound = ulps * np.spacing(np.abs(exact).astype(F32)) + 2e-36  # phi is 0 below 2^-126
    worst = np.argmax(np.abs(got - exact) / bound)
    assert np.abs(got - exact)[worst] <= bound[worst], f"gelu({x[worst]!r}) = {got[worst]!r}"
    check_bits(got[x > 6], x[x > 6])


def test_relu_keeps_what_is_not_below_zero(isa: str) -> None:
    x = np.array([-np.inf, -1e-45, -0.0, 0.0, 1e-45, 3.0, np.inf, np.nan], F32)
    want = np.array([0.0, 0.0, -0.0, 0.0, 1e-45, 3.0, np.inf, np.nan], F32)
    check_bits(activate(isa, x, native.ACTIVATIONS.index("relu")), want)


def test_a_clamped_gate_is_right_over_the_whole_range(isa: str) -> None:
    wide = np.meshgrid(np.linspace(-40, 9, 2001), np.linspace(-9, 9, 91))
    gate, up = (each.ravel().astype(F32) for each in wide)
    x, y = np.minimum(gate.astype(np.float64), 7), np.clip(up.astype(np.float64), -7, 7)
    exact = (y + 1) * x / (1 + np.exp(-1.702 * x))
    got = gated(isa, gate, up, CLAMPED)
    bound = 2e-6 * (np.abs(x) + 1) * np.abs(exact) + 1e-6 * np.abs(y + 1) * 2.0**-24 + 1e-30
    worst = np.argmax(np.abs(got - exact) - bound)
    assert np.all(np.abs(got - exact) <= bound), (gate[worst], up[worst], got[worst], exact[worst])


def test_a_clamped_gate_at_its_edges(isa: str) -> None:
    gate = np.array([np.inf, 1e38, 0.0, -1e38, np.nan, 1.0, 1.0, 1.0], F32)
    up = np.array([np.inf, -np.inf, 3.0, 3.0, 3.0, np.nan, -1.0, 1e38], F32)
    got = gated(isa, gate, up, CLAMPED)
    assert got[:4].tolist() == [8 * F32(got[0] / 8), -6 * F32(got[0] / 8), 0, 0]
    assert got[0] == pytest.approx(8 * 7 / (1 + math.exp(-1.702 * 7)), rel=1e-6)
    assert np.isnan(got[4:6]).all()
    assert (got[6], got[7]) == (0, pytest.approx(8 / (1 + math.exp(-1.702)), rel=1e-6))


@pytest.mark.parametrize("kind", UNGATED)
def test_activations_of_edges(isa: str, kind: int) -> None:
    gate = np.array([0.0, -0.0, np.inf, 1e38, -1e38, np.nan, 1.0, 2.0], F32)
    up = np.array([3.0, 3.0, 1.0, 1.0, 1.0, 1.0, np.nan, 0.0], F32)
    got = gated(isa, gate, up, kind)
    assert got[[0, 1, 2, 3, 4, 7]].tolist() == [0, 0, np.inf, F32(1e38), 0, 0]
    assert np.isnan(got[5:7]).all()


def test_elementwise_rows_do_not_depend_on_where_they_are_cut(isa: str) -> None:
    gate, up = normal(np.random.default_rng(2), 2, 100)
    whole = gated(isa, gate, up)
    for cut in range(101):
        parts = [gated(isa, g, u) for g, u in ((gate[:cut], up[:cut]), (gate[cut:], up[cut:]))]
        check_bits(np.concatenate(parts), whole)


X, Y = np.zeros(8, F32), np.zeros(9, F32)
ANGLES: dict[str, Any] = {"cos": Y[:4], "sin": Y[:4]}
BAD = np.zeros(8), np.zeros(16, F32)[::2], np.zeros((2, 4), F32)
OTHER_TYPE = "incompatible function arguments"


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("Norm", {"weight": Y}, "weight: expected 8 values, got 9"),
        ("Norm", {"weight": X, "heads": 2}, "weight: expected 4 values, got 8"),
        ("GatedActivation", {"out": Y, "y": X}, "out: expected 8 values, got 9"),
        ("GatedActivation", {"y": Y}, "y: expected 8 values, got 9"),
        ("GatedActivation", {}, "y: expected an array, got none"),
        ("GatedActivation", {"y": X, "weight": X}, "weight: expected none, got an array"),
        ("Norm", {"bias": Y}, "bias: expected 8 values, got 9"),
        ("Norm", {"norm_kind": 2}, "norm_kind: expected 0 to 1, got 2"),
        ("Scale", {"bias": X}, "bias: expected none, got an array"),
        ("Norm", dict.fromkeys(("out", "x", "weight"), X[:0]), "heads: expected 1 to 0, got 1"),
        ("Norm", {"weight": X, "heads": 3}, "heads: expected a divisor of 8, got 3"),
        ("Scale", {"heads": 2}, "heads: expected 1 to 1, got 2"),
        ("Rope", {"cos": Y[:5], "sin": Y[:5]}, "cos: expected at most dim/2 values, got 5"),
        ("Rope", {"cos": Y[:4], "sin": Y[:3]}, "sin: expected 4 values, got 3"),
        ("Rope", ANGLES | {"rope_style": 2}, "rope_style: expected 0 to 1, got 2"),
        ("ScaleByPosition", {"original": 0}, "original: expected 1 to 2147483647, got 0"),
        ("ScaleByPosition", {"position": -1}, "position: expected 0 to 1073741824, got -1"),
        ("Matmul", {}, r"name: expected an op of row_ops\.h, got Matmul"),
        ("GatedActivation", {"y": X, "activation": 5}, "activation: expected 0 to 4, got 5"),
        ("Activate", {"activation": 4}, "activation: expected 0 to 3, got 4"),
        ("GatedActivation", {"isa": "z80", "y": X}, "isa: expected one of base"),
        # other dtypes, strides and ranks are never converted
        *(("GatedActivation", {"x": bad, "y": X}, OTHER_TYPE) for bad in BAD),
        *(("Norm", {"out": bad, "weight": X}, OTHER_TYPE) for bad in BAD),
    ],
)
def test_bad_arguments_are_refused(isa: str, name: str, more: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"isa": isa, "name": name, "out": X, "x": X}
    with pytest.raises(TypeError if message == OTHER_TYPE else ValueError, match=message):
        native.row_op(**(arguments | more))
