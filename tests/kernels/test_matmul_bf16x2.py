"""Packed integer weights times rows of two bf16 terms, on every ISA level.

Where there are no bf16 dots the rows are floats and the result equals the numpy twin bit for bit.
On every level it stays inside a bound derived from the terms left out and the roundings of sums.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from octavo.weights.ggml_type import GGMLType
from tests.kernels import matmul_twin as twin
from tests.kernels import quantize_twin
from tests.kernels.exact import check_bits
from tests.kernels.gguf_blocks import TYPE_OF, random_blocks, values_of
from tests.kernels.guard import guarded
from tests.kernels.matmul_cuts import check_cuts

EPS = 2.0**-24  # float32 rounds to within this share of a value
LEFT_OUT = 2.0**-17  # of a value: half a unit in the last place of lo
FORMATS = list(TYPE_OF)
ISAS = available_isas()
every_isa = pytest.mark.parametrize("isa", ISAS)
every_format = pytest.mark.parametrize("fmt", FORMATS)


@pytest.fixture(scope="module")
def pool():
    return native.ThreadPool(1)


def make_weight(pool, fmt, rows, cols, rng):
    type = TYPE_OF[fmt]
    return native.pack_weight(pool, random_blocks(type, rows, cols, rng), type, rows, cols, fmt)


def multiply(isa, weight, x, **kwargs):
    out = np.full((len(x), weight.rows), np.nan, np.float32)
    native.matmul(isa, weight, x, out, rows="ABF16X2", **kwargs)
    return out


def exact_values(weight):
    """scale * quant + min without any rounding, in float64."""
    w = twin.unpack(weight)
    values = w.quants * np.repeat(w.scales.astype(float), w.scale_span, axis=1)
    return values if w.mins is None else values + np.repeat(w.mins.astype(float), 32, axis=1)


def bound_of(weight, x):
    """Largest error of a sum.

    A chain of 16 dots rounds at most three times a dot, its two halves are added once, a sum of 32
    is a tree of depth 5, and a group adds two products to the sum over k.
    """
    w = twin.unpack(weight)
    groups = w.quants.shape[1] // w.scale_span
    offset = twin.OFFSET[weight.format]
    scales = np.repeat(np.abs(w.scales.astype(float)), w.scale_span, axis=1)
    mins = 0.0 if w.mins is None else np.repeat(np.abs(w.mins.astype(float)), 32, axis=1)
    terms = scales * (w.quants + offset) + scales * offset + mins
    size = np.abs(x).astype(float)
    left_out = LEFT_OUT * size @ np.abs(exact_values(weight)).T
    return left_out + (3 * 16 + 1 + 5 + 2 * groups + 2) * EPS * 1.01 * (size @ terms.T)


@st.composite
def cases(draw, tokens=20):
    fmt = draw(st.sampled_from(FORMATS))
    wide = twin.SPAN[fmt] == 256
    cols = draw(st.sampled_from([256, 512] if wide else [32, 64, 96, 576]))
    rows, count = draw(st.integers(1, 70)), draw(st.integers(1, tokens))
    return fmt, rows, cols, count, draw(st.integers(0, 2**32 - 1))


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "avx512bf16"])
@settings(max_examples=20, deadline=None)
@given(case=cases(), with_bias=st.booleans(), with_add=st.booleans())
def test_float_rows_equal_the_twin(pool, isa, case, with_bias, with_add):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    bias = rng.standard_normal(rows).astype(np.float32) if with_bias else None
    add = rng.standard_normal((tokens, rows)).astype(np.float32) if with_add else None
    want = twin.exact_row_sums(isa, weight, x)
    want = want if bias is None else want + bias
    want = want if add is None else want + add
    check_bits(multiply(isa, weight, x, bias=bias, add=add), want)


@every_isa
@settings(max_examples=25, deadline=None)
@given(case=cases(70), mean=st.sampled_from([0.0, 1.0, -30.0]))
def test_the_error_is_bounded(pool, isa, case, mean):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = (rng.standard_normal((tokens, cols)) + mean).astype(np.float32)
    error = np.abs(multiply(isa, weight, x) - x.astype(float) @ exact_values(weight).T)
    assert np.all(error <= bound_of(weight, x)), (error / bound_of(weight, x)).max()


@every_isa
@every_format
def test_rows_are_nearly_float32(pool, isa, fmt):
    """2^-17 of each value is left out at most; rows of one bf16 are wrong by 2^-10."""
    rng = np.random.default_rng(5)
    weight = make_weight(pool, fmt, 64, 512, rng)
    x = rng.standard_normal((13, 512)).astype(np.float32)
    exact = x.astype(float) @ exact_values(weight).T
    error = np.linalg.norm(multiply(isa, weight, x) - exact, axis=1)
    assert np.all(error <= 2.0**-16 * np.linalg.norm(exact, axis=1))


@every_isa
@every_format
@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_every_quant_is_exact(pool, isa, fmt, byte):
    """All quants at one end, rows whose chains round nothing: only the sum over k does."""
    type = TYPE_OF[fmt]
    rng = np.random.default_rng(6)
    blocks = values_of(random_blocks(type, 33, 512, rng), type, byte)
    weight = native.pack_weight(pool, blocks, type, 33, 512, fmt)
    x = rng.choice(np.array([-1.0, 0.5, 2.0], np.float32), (7, 512))
    w = twin.unpack(weight)
    terms = np.repeat(np.abs(w.scales.astype(float)), w.scale_span, axis=1) * 2 * twin.OFFSET[fmt]
    terms = terms + np.abs(exact_values(weight))
    error = np.abs(multiply(isa, weight, x) - x.astype(float) @ exact_values(weight).T)
    assert np.all(error <= (2 * w.scales.shape[1] + 2) * EPS * (np.abs(x).astype(float) @ terms.T))


@every_isa
def test_every_byte_of_w8_by_hand(pool, isa):
    """One row for each byte, scale 1, times 1 at k = 0..31 in turn: the quant itself."""
    blocks = np.zeros((256, 34), np.uint8)
    blocks[:, :2] = np.array([1.0], np.float16).view(np.uint8)
    blocks[:, 2:] = np.arange(256, dtype=np.uint8)[:, None]
    weight = native.pack_weight(pool, blocks.reshape(-1), GGMLType.Q8_0, 256, 32, "W8")
    got = multiply(isa, weight, np.eye(32, dtype=np.float32))
    assert np.array_equal(got, np.tile(np.arange(256, dtype=np.uint8).view(np.int8), (32, 1)))


@every_isa
@settings(max_examples=20, deadline=None)
@given(case=cases(70), data=st.data())
def test_bits_do_not_depend_on_batch_tiles_or_panels(pool, isa, case, data):
    fmt, rows, cols, tokens, seed = case
    rng = np.random.default_rng(seed)
    weight = make_weight(pool, fmt, rows, cols, rng)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    check_cuts(data, isa, weight, x, rows="ABF16X2")


@every_isa
@every_format
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_bad_token_spoils_only_itself(pool, isa, fmt, bad):
    rng = np.random.default_rng(7)
    weight = make_weight(pool, fmt, 40, 256, rng)
    x = rng.standard_normal((9, 256)).astype(np.float32)
    clean = multiply(isa, weight, x)
    x[3, 100] = bad
    got = multiply(isa, weight, x)
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    assert np.array_equal(got[others], clean[others])
    assert np.isnan(got[3]).all()


@every_isa
@every_format
@pytest.mark.parametrize("tokens", [1, 3, 8])
def test_nothing_is_touched_behind_weights_rows_or_outputs(pool, isa, fmt, tokens):
    """Every array ends at a page that may not be touched; what lies beside the rows stays."""
    cols = 256 if twin.SPAN[fmt] == 256 else 96
    rng = np.random.default_rng(10)
    source = make_weight(pool, fmt, 43, cols, rng)
    weight = native.PackedWeight(guarded(source.view()), 43, cols, fmt)
    x = guarded(rng.standard_normal((tokens, cols)).astype(np.float32))
    wide = guarded(np.full((tokens, 50), -7, np.float32))
    native.matmul(isa, weight, x, wide[:, 7:], rows="ABF16X2")
    assert np.array_equal(wide[:, 7:], multiply(isa, source, x))
    assert np.all(wide[:, :7] == -7)


EDGES = [0.0, -0.0, 1e-45, -3e-39, 1.0, 1.00390625, 1.0078125, -1.9999999, 1e-20, 1e38, 3.4e38]


@every_isa
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_quantize_equals_its_twin(isa, data):
    tokens, cols = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5)) * 32
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((tokens, cols)).astype(np.float32) * np.float32(
        10.0 ** rng.integers(-36, 30)
    )
    for _ in range(data.draw(st.integers(0, 12))):
        edge = data.draw(st.sampled_from([*EDGES, np.inf, -np.inf, np.nan]))
        x[rng.integers(tokens), rng.integers(cols)] = edge
    assert native.quantize(isa, x, "ABF16X2") == quantize_twin.quantize(isa, x, "ABF16X2")


def test_a_value_split_by_hand():
    """1 + 2^-9 + 2^-16 is hi 1 and lo 2^-9 + 2^-16; both wait in the low halves of rows 0 and 2."""
    if "avx512bf16" not in ISAS:
        pytest.skip("this machine has no bf16 dots")
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 1 + 2.0**-9 + 2.0**-16
    x[0, 31] = -2
    words = np.frombuffer(native.quantize("avx512bf16", x, "ABF16X2"), np.uint32)
    assert words[[0, 1, 2, 3]].tolist() == [0x3F80, 0, 0x3B01, 0]
    assert words[[28, 29, 30, 31]].tolist() == [0, 0xC0000000, 0, 0]
    assert words[32:].view(np.float32).tolist() == [x[0, 0] - 2, x[0, 0], -2]


@every_format
def test_levels_with_float_rows_agree(pool, fmt):
    rng = np.random.default_rng(12)
    weight = make_weight(pool, fmt, 100, 512, rng)
    x = rng.standard_normal((11, 512)).astype(np.float32)
    results = [multiply(isa, weight, x) for isa in ISAS if isa not in ("base", "avx512bf16")]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_rows_that_a_weight_does_not_take_are_refused(pool):
    x, out = np.zeros((3, 64), np.float32), np.zeros((3, 20), np.float32)
    weight = make_weight(pool, "W4A", 20, 64, np.random.default_rng(13))
    with pytest.raises(ValueError, match="rows: expected A32 or ABF16X2, got ABF16"):
        native.matmul("base", weight, x, out, rows="ABF16")
    floats = native.PackedWeight(20, 64, "BF16")
    with pytest.raises(ValueError, match="rows: expected ABF16 for BF16, got ABF16X2"):
        native.matmul("base", floats, x, out, rows="ABF16X2")
    with pytest.raises(ValueError, match="x: expected a multiple of 32 columns, got 33"):
        native.quantize("base", np.zeros((2, 33), np.float32), "ABF16X2")
