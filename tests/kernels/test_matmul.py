"""Packed weights times packed activations, on every ISA level.

Integer formats, F32 and software BF16 equal the numpy twin bit for bit; against float64 the errors
stay inside bounds derived from the rounding of activations and sums. No bit depends on how the work
is cut.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from tests.kernels import matmul_twin as twin
from tests.kernels import quantize_twin
from tests.kernels.gguf_blocks import OWN_FORMAT, TYPE_OF, random_blocks, values_of
from tests.kernels.guard import guarded
from tests.kernels.matmul_case import EPS, INTEGER_FORMATS, ISAS, every_isa, make_weight, multiply
from tests.kernels.matmul_cuts import check_cuts

every_integer_format = pytest.mark.parametrize("fmt", INTEGER_FORMATS)


@pytest.fixture(scope="module")
def pool():
    return native.ThreadPool(1)


def bits_equal(got, want):
    """The same numbers in the same places; any NaN equals any NaN."""
    wrong = np.argwhere(~((got == want) | (np.isnan(got) & np.isnan(want))))
    assert not len(wrong), (
        f"first at {wrong[0]}: got {got[tuple(wrong[0])]!r}, want {want[tuple(wrong[0])]!r}"
    )


@st.composite
def cases(draw, formats):
    fmt = draw(st.sampled_from(formats))
    if fmt in ("BF16", "F32"):
        cols = draw(st.integers(1, 100))
    elif twin.SPAN[fmt] == 256:
        cols = draw(st.sampled_from([256, 512, 1536]))
    else:
        cols = draw(st.sampled_from([32, 64, 96, 576, 1536]))
    return (
        fmt,
        draw(st.integers(1, 130)),
        cols,
        draw(st.integers(1, 70)),
        draw(st.integers(0, 2**32 - 1)),
    )


@every_isa
@settings(max_examples=25, deadline=None)
@given(case=cases([*INTEGER_FORMATS, "F32"]), with_bias=st.booleans(), with_add=st.booleans())
def test_matmul_equals_its_twin(pool, isa, case, with_bias, with_add):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    bias = rng.standard_normal(rows).astype(np.float32) if with_bias else None
    add = rng.standard_normal((tokens, rows)).astype(np.float32) if with_add else None
    want = np.full((tokens, rows), np.nan, np.float32)
    twin.matmul(isa, weight, x, want, bias=bias, add=add)
    bits_equal(multiply(isa, weight, x, bias=bias, add=add), want)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "avx512bf16"])
@settings(max_examples=15, deadline=None)
@given(case=cases(["BF16"]))
def test_bf16_without_hardware_equals_its_twin(pool, isa, case):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    bits_equal(multiply(isa, weight, x), twin.sums(isa, weight, x))


@every_isa
@settings(max_examples=25, deadline=None)
@given(case=cases([*INTEGER_FORMATS, "BF16", "F32"]))
def test_matmul_is_near_the_exact_product(pool, isa, case):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    floats = fmt in ("BF16", "F32")
    values = (twin.unpack_floats(weight) if floats else twin.unpack(weight).dequantize()).astype(
        float
    )
    # An activation moves by at most half a step of its group (a bf16 one by 2^-8 of itself).
    if floats:
        moved = np.abs(x).astype(float) * (2.0**-8 if fmt == "BF16" else 0)
    else:
        amax = np.abs(x.reshape(tokens, -1, 32)).max(-1).astype(float)
        moved = np.repeat(amax / 127 * 0.5 * (1 + 8 * EPS), 32, axis=1)
    # Each link of the chain rounds a product and a sum; a value with a min is two terms.
    parts = np.abs(values) if floats else np.abs(values) + np.abs(_offsets(twin.unpack(weight)))
    links = 3 * (cols if floats else cols // 16 + 2) + 2
    bound = moved @ np.abs(values).T + links * EPS * ((np.abs(x) + moved) @ parts.T) * 1.01
    got, exact = multiply(isa, weight, x), x.astype(float) @ values.T
    worst = np.unravel_index(np.argmax(np.abs(got - exact) - bound), got.shape)
    assert np.all(np.abs(got - exact) <= bound), (
        isa,
        fmt,
        worst,
        got[worst],
        exact[worst],
        bound[worst],
    )


def _offsets(unpacked):
    """What a value with a min is the difference of: scale * q = value - min."""
    return 0.0 if unpacked.mins is None else 2 * np.repeat(unpacked.mins.astype(float), 32, axis=1)


@every_isa
@settings(max_examples=20, deadline=None)
@given(case=cases([*INTEGER_FORMATS, "BF16", "F32"]), data=st.data())
def test_bits_do_not_depend_on_batch_tiles_or_panels(pool, isa, case, data):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    check_cuts(data, isa, weight, x)


@every_isa
@every_integer_format
@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("signs", ["plus", "minus", "alternating"])
def test_extremes_do_not_saturate(pool, isa, fmt, byte, signs):
    """All quants at an end (15, 31, 63, 255 or 0), activations at +-127: int16 would overflow."""
    type = TYPE_OF[fmt]
    rng = np.random.default_rng(6)
    blocks = values_of(random_blocks(type, 33, 512, rng), type, byte)
    weight = native.pack_weight(pool, blocks, type, 33, 512, fmt)
    x = np.ones((7, 512), np.float32)
    x[:, 1::2] *= -1 if signs == "alternating" else 1
    x *= -1 if signs == "minus" else 1
    assert np.abs(quantize_twin.quantize_rows(x).quants).min() == 127
    bits_equal(multiply(isa, weight, x), twin.sums(isa, weight, x))


@every_isa
def test_all_w8_weights_at_minus_128(pool, isa):
    """The sum is taken by hand: 576 times -128 * 0.5 * 1, within the roundings of 18 groups."""
    block = np.full((1, 34), 0x80, np.uint8)
    block[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    weight = native.pack_weight(
        pool, np.tile(block, (1, 18)).reshape(-1), GGMLType.Q8_0, 1, 576, "W8"
    )
    got = multiply(isa, weight, np.ones((1, 576), np.float32))
    assert abs(got[0, 0] / -36864 - 1) <= 40 * EPS


@every_isa
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("fmt", [*INTEGER_FORMATS, "BF16", "F32"])
def test_a_bad_token_spoils_only_itself(pool, isa, fmt, bad):
    rng = np.random.default_rng(7)
    weight = make_weight(pool, fmt, 40, 256, rng)
    x = rng.standard_normal((9, 256)).astype(np.float32)
    clean = multiply(isa, weight, x)
    x[3, 100] = bad
    got = multiply(isa, weight, x)
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    assert np.array_equal(got[others], clean[others])
    assert not np.isfinite(got[3]).any()
    if fmt in INTEGER_FORMATS:
        assert np.isnan(got[3]).all()


@every_isa
@pytest.mark.parametrize("type", OWN_FORMAT, ids=lambda t: t.name)
def test_expand_row_is_what_ggml_dequantises(pool, isa, type):
    rng = np.random.default_rng(8)
    cols = 3 * type.block_values
    blocks = random_blocks(type, 19, cols, rng)
    want = dequantize(type, blocks, (19, cols))
    for fmt in (OWN_FORMAT[type], "F32"):
        weight = native.pack_weight(pool, blocks, type, 19, cols, fmt)
        row = guarded(np.zeros(cols, np.float32))
        for r in range(19):
            native.expand_row(isa, weight, r, row)
            assert np.array_equal(row, want[r])


@every_isa
def test_expand_row_of_bf16_with_an_odd_number_of_columns(pool, isa):
    weight = make_weight(pool, "BF16", 17, 33, np.random.default_rng(9))
    row = guarded(np.zeros(33, np.float32))
    native.expand_row(isa, weight, 16, row)
    assert np.array_equal(row, twin.unpack_floats(weight)[16])


@every_isa
@pytest.mark.parametrize("fmt", [*INTEGER_FORMATS, "BF16", "F32"])
@pytest.mark.parametrize("tokens", [1, 3, 8])
def test_nothing_is_touched_behind_weights_rows_or_outputs(pool, isa, fmt, tokens):
    """Every array ends at a page that may not be touched; what lies beside the rows stays."""
    cols = {"BF16": 35, "F32": 33}.get(fmt, 256 if twin.SPAN.get(fmt) == 256 else 96)
    rng = np.random.default_rng(10)
    source = make_weight(pool, fmt, 43, cols, rng)
    weight = native.PackedWeight(guarded(source.view()), 43, cols, fmt)
    x, bias, add = (
        guarded(rng.standard_normal(shape).astype(np.float32))
        for shape in [(tokens, cols), (43,), (tokens, 43)]
    )
    wide = guarded(np.full((tokens, 50), -7, np.float32))
    native.matmul(isa, weight, x, wide[:, 7:], bias=bias, add=add)
    assert np.array_equal(wide[:, 7:], multiply(isa, source, x, bias=bias, add=add))
    assert np.all(wide[:, :7] == -7)
    out = guarded(np.zeros((tokens, 43), np.float32))
    native.matmul(isa, weight, x, out)
    assert np.array_equal(out, multiply(isa, source, x))


@every_isa
def test_add_may_be_the_output_itself(pool, isa):
    rng = np.random.default_rng(11)
    weight = make_weight(pool, "W4A", 50, 64, rng)
    x, hidden = (rng.standard_normal((8, n)).astype(np.float32) for n in (64, 50))
    want = multiply(isa, weight, x, add=hidden.copy())
    native.matmul(isa, weight, x, hidden, add=hidden)
    assert np.array_equal(hidden, want)


@pytest.mark.parametrize("fmt", INTEGER_FORMATS)
def test_levels_with_fma_agree(pool, fmt):
    rng = np.random.default_rng(12)
    weight = make_weight(pool, fmt, 100, 512, rng)
    x = rng.standard_normal((11, 512)).astype(np.float32)
    results = [multiply(isa, weight, x) for isa in ISAS if isa != "base"]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_what_does_not_fit_is_refused_by_name(pool):
    weight = make_weight(pool, "W4A", 20, 64, np.random.default_rng(13))
    x, out = np.zeros((3, 64), np.float32), np.zeros((3, 20), np.float32)
    with pytest.raises(ValueError, match=r"isa: expected one of base, .* got sse9"):
        native.matmul("sse9", weight, x, out)
    with pytest.raises(ValueError, match="x: expected 64 columns, got 32"):
        native.matmul("base", weight, x[:, :32], out)
    with pytest.raises(ValueError, match="x: expected a multiple of 32 columns, got 63"):
        native.matmul("base", weight, x[:, :63], out)
    with pytest.raises(
        ValueError, match="x: expected rows contiguous in memory, got a stride of 3"
    ):
        native.matmul("base", weight, np.zeros((64, 3), np.float32).T, out)
    with pytest.raises(
        ValueError, match="x: expected at least one row and one column, got an empty array"
    ):
        native.matmul("base", weight, x[:0], out[:0])
    with pytest.raises(ValueError, match=r"out: expected \(3, 20\), got \(3, 19\)"):
        native.matmul("base", weight, x, out[:, :19])
    with pytest.raises(ValueError, match="bias: expected 20 values, got 3"):
        native.matmul("base", weight, x, out, bias=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"add: expected \(3, 20\), got \(2, 20\)"):
        native.matmul("base", weight, x, out, add=out[:2])
    with pytest.raises(
        ValueError, match="panel0, panel1: expected 0 <= panel0 < panel1 <= 2, got 1, 3"
    ):
        native.matmul("base", weight, x, out, panel0=1, panel1=3)
    with pytest.raises(
        ValueError, match="tile0, tile1: expected 0 <= tile0 < tile1 <= 1, got 1, 1"
    ):
        native.matmul("base", weight, x, out, tile0=1)
    with pytest.raises(ValueError, match=r"row: expected 0\.\.19, got 20"):
        native.expand_row("base", weight, 20, np.zeros(64, np.float32))
    with pytest.raises(ValueError, match="kind: expected A32, ABF16, ABF16X2 or AF32, got A8"):
        native.quantize("base", x, "A8")
    for wrong in (x.astype(np.float64), x.astype(np.float16)):
        with pytest.raises(TypeError):
            native.matmul("base", weight, wrong, out)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        native.matmul("base", weight, x, frozen)
