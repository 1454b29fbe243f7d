"""Packed weights times packed activations, on every ISA level.

Integer formats, F32, software BF16 and rows of two bf16 terms without bf16 dots equal the numpy
twin bit for bit; against float64 the errors stay inside bounds derived from the rounding of
activations and sums. No bit depends on how the work is cut.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from tests.kernels import matmul_case as case
from tests.kernels import matmul_twin as twin
from tests.kernels import quantize_twin
from tests.kernels.exact import F32, check_bits
from tests.kernels.gguf_blocks import OWN_FORMAT, TYPE_OF, random_blocks, values_of
from tests.kernels.guard import guarded
from tests.kernels.levels import every_isa

pytestmark = every_isa


def has_twin(isa: str, kind: case.Kind) -> bool:
    """Tell whether sums are float32 arithmetic: bf16 dots have a rounding of their own."""
    return isa != "avx512bf16" or (kind in case.OWN_ROWS and kind[0] != "BF16")


@settings(max_examples=5, deadline=None)
@given(
    data=st.data(), biased=st.booleans(), added=st.booleans(), scale=st.sampled_from([1, 0.22, -3])
)
def test_matmul_equals_its_twin(
    isa: str, data: st.DataObject, biased: bool, added: bool, scale: float
) -> None:
    """So levels agree, but for base: the twin's sums are the same for all others."""
    for kind in filter(partial(has_twin, isa), [*case.OWN_ROWS, *case.TWO_TERMS]):
        weight, x, rows, rng = data.draw(case.products([kind]))
        bias = case.normal(rng, weight.rows) if biased else None
        add = case.normal(rng, len(x), weight.rows) if added else None
        options: dict[str, Any] = {"bias": bias, "scale": scale, "add": add, "rows": rows}
        want = twin.matmul(isa, weight, x, **options)
        check_bits(case.multiply(isa, weight, x, **options), want)


@settings(max_examples=25, deadline=None)
@given(product=case.products(case.OWN_ROWS))
def test_matmul_is_near_the_exact_product(isa: str, product: case.Product) -> None:
    weight, x, _, _ = product
    fmt, cols = weight.format, weight.cols
    floats = fmt in ("BF16", "F32")
    unpacked = twin.unpack_floats(weight) if floats else twin.unpack(weight).dequantize()
    values = unpacked.astype(float)
    # An activation moves by at most half a step of its group (a bf16 one by 2^-8 of itself).
    if floats:
        moved = np.abs(x).astype(float) * (2.0**-8 if fmt == "BF16" else 0)
    else:
        amax = np.abs(x.reshape(len(x), -1, 32)).max(-1).astype(float)
        moved = np.repeat(amax / 127 * 0.5 * (1 + 8 * case.EPS), 32, axis=1)
    # Each link of the chain rounds a product and a sum. A value with a min is two terms, for
    # scale * q = value - min.
    parts, links = np.abs(values), cols
    if not floats:
        packed = twin.unpack(weight)
        links = packed.scales.shape[1] * (1 if packed.mins is None else 2)
        if packed.mins is not None:
            parts += np.abs(2 * np.repeat(packed.mins.astype(float), packed.scale_span, axis=1))
    links = 3 * (links + 2) + 2
    bound = moved @ np.abs(values).T + links * case.EPS * ((np.abs(x) + moved) @ parts.T) * 1.01
    got, exact = case.multiply(isa, weight, x), x.astype(float) @ values.T
    worst = np.unravel_index(np.argmax(np.abs(got - exact) - bound), got.shape)
    found = isa, fmt, worst, got[worst], exact[worst], bound[worst]
    assert np.all(np.abs(got - exact) <= bound), found


@settings(max_examples=40, deadline=None)
@given(product=case.products([*case.OWN_ROWS, *case.TWO_TERMS]), data=st.data())
def test_bits_do_not_depend_on_batch_tiles_or_panels(
    isa: str, product: case.Product, data: st.DataObject
) -> None:
    """Any run of tokens, of panels and of tiles equals its part of the whole, and a cut leaves what
    lies outside of it untouched."""
    weight, x, rows, _ = product
    tokens, together = len(x), case.multiply(isa, weight, x, rows=rows)
    first = data.draw(st.integers(0, tokens - 1), "first row")
    for last in (first + 1, data.draw(st.integers(first + 1, tokens), "end row")):
        alone = case.multiply(isa, weight, x[first:last], rows=rows)
        assert np.array_equal(alone, together[first:last])
    panel0 = data.draw(st.integers(0, weight.panels - 1), "first panel")
    panel1 = data.draw(st.integers(panel0 + 1, weight.panels), "end panel")
    tiles = quantize_twin.tiles_of(tokens)
    tile0 = data.draw(st.integers(0, len(tiles) - 1), "first tile")
    tile1 = data.draw(st.integers(tile0 + 1, len(tiles)), "end tile")
    columns = slice(16 * panel0, min(16 * panel1, weight.rows))
    want = np.full((tokens, columns.stop - columns.start), -7, F32)
    touched = slice(tiles[tile0].start, tiles[tile1 - 1].stop)
    want[touched] = together[touched, columns]
    got = np.full_like(want, -7)
    native.matmul(
        isa, weight, x, got, rows=rows, panel0=panel0, panel1=panel1, tile0=tile0, tile1=tile1
    )
    assert np.array_equal(got, want)


@case.every_format
@pytest.mark.parametrize("byte", [0x00, 0xFF])
@pytest.mark.parametrize("signs", ["plus", "minus", "alternating"])
def test_extremes_do_not_saturate(isa: str, fmt: str, byte: int, signs: str) -> None:
    """All quants at an end (15, 31, 63, 255 or 0), activations at +-127: int16 would overflow."""
    type = TYPE_OF[fmt]
    blocks = values_of(random_blocks(type, 33, 512, np.random.default_rng(6)), type, byte)
    weight = native.pack_weight(case.POOL, blocks, type, 33, 512, fmt)
    x = np.ones((7, 512), F32)
    x[:, 1::2] *= -1 if signs == "alternating" else 1
    x *= -1 if signs == "minus" else 1
    assert np.abs(quantize_twin.quantize_rows(x).quants).min() == 127
    check_bits(case.multiply(isa, weight, x), twin.matmul(isa, weight, x))


def test_all_w8_weights_at_minus_128(isa: str) -> None:
    """The sum is taken by hand: 576 times -128 * 0.5 * 1, within the roundings of 18 groups."""
    block = np.full((18, 34), 0x80, np.uint8)
    block[:, :2] = np.array([0.5], np.float16).view(np.uint8)
    weight = native.pack_weight(case.POOL, block.reshape(-1), GGMLType.Q8_0, 1, 576, "W8")
    got = case.multiply(isa, weight, np.ones((1, 576), F32))
    assert abs(got[0, 0] / -36864 - 1) <= 40 * case.EPS


@pytest.mark.parametrize("tokens", [9, 41])  # in tiles, and where there are blocks in these
@case.every_kind
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_bad_token_spoils_only_itself(
    isa: str, fmt: str, rows: str | None, bad: float, tokens: int
) -> None:
    rng = np.random.default_rng(7)
    weight, x = case.make_weight(fmt, 40, 256, rng), case.normal(rng, tokens, 256)
    clean = case.multiply(isa, weight, x, rows=rows)
    x[3, 100] = bad
    got = case.multiply(isa, weight, x, rows=rows)
    others = [token for token in range(tokens) if token != 3]
    assert np.array_equal(got[others], clean[others])
    assert not np.isfinite(got[3]).any()
    if fmt in case.INTEGER_FORMATS:
        assert np.isnan(got[3]).all()


@pytest.mark.parametrize("type", OWN_FORMAT, ids=lambda t: t.name)
def test_expand_row_is_what_ggml_dequantises(isa: str, type: GGMLType) -> None:
    cols = 3 * type.block_values
    blocks = random_blocks(type, 19, cols, np.random.default_rng(8))
    want = dequantize(type, blocks, (19, cols))
    for fmt in (OWN_FORMAT[type], "F32"):
        weight = native.pack_weight(case.POOL, blocks, type, 19, cols, fmt)
        row = guarded(np.zeros(cols, F32))
        for r in range(19):
            native.expand_row(isa, weight, r, row)
            assert np.array_equal(row, want[r])


def test_expand_row_of_bf16_with_odd_columns_up_to_the_last_row(isa: str) -> None:
    weight = case.make_weight("BF16", 17, 33, np.random.default_rng(9))
    row = guarded(np.zeros(33, F32))
    native.expand_row(isa, weight, 16, row)
    assert np.array_equal(row, twin.unpack_floats(weight)[16])
    with pytest.raises(ValueError, match=r"row: expected 0\.\.16, got 17"):
        native.expand_row(isa, weight, 17, row)


@case.every_kind
@pytest.mark.parametrize("tokens", [1, 3, 8, 33])
def test_nothing_is_touched_behind_weights_rows_or_outputs(
    isa: str, fmt: str, rows: str | None, tokens: int
) -> None:
    """Every array ends at a page that may not be touched; what lies beside the rows stays."""
    cols = {"BF16": 35, "F32": 33}.get(fmt, 256 if twin.SPAN.get(fmt) == 256 else 96)
    rng = np.random.default_rng(10)
    source = case.make_weight(fmt, 43, cols, rng)
    weight = native.PackedWeight(guarded(source.view()), 43, cols, fmt)
    shapes = (tokens, cols), (43,), (tokens, 43)
    x, bias, add = (guarded(case.normal(rng, *shape)) for shape in shapes)
    options: dict[str, Any]
    for options in ({"rows": rows}, {"rows": rows, "bias": bias, "add": add}):
        want = case.multiply(isa, source, x, **options)
        for left in (0, 7):
            wide = guarded(np.full((tokens, left + 43), -7, F32))
            native.matmul(isa, weight, x, wide[:, left:], **options)
            assert np.array_equal(wide[:, left:], want)
            assert np.all(wide[:, :left] == -7)


def test_add_may_be_the_output_itself(isa: str) -> None:
    rng = np.random.default_rng(11)
    weight = case.make_weight("W4A", 50, 64, rng)
    x, hidden = case.normal(rng, 8, 64), case.normal(rng, 8, 50)
    want = case.multiply(isa, weight, x, add=hidden.copy())
    native.matmul(isa, weight, x, hidden, add=hidden)
    assert np.array_equal(hidden, want)


X, OUT = np.zeros((3, 64), F32), np.zeros((3, 20), F32)
EMPTY = {"x": X[:0], "out": OUT[:0]}
BEYOND = {"panel0": 1, "panel1": 3}
FROZEN = OUT.copy()
FROZEN.flags.writeable = False
FLOATS = native.PackedWeight(20, 64, "BF16")
OTHER_TYPE = "incompatible function arguments"


def call(isa: str, change: dict[str, Any]) -> None:
    weight = case.make_weight("W4A", 20, 64, np.random.default_rng(13))
    arguments: dict[str, Any] = {"isa": isa, "weight": weight, "x": X, "out": OUT}
    native.matmul(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isa": "sse9"}, "isa: expected one of base, .* got sse9"),
        ({"x": X[:, :32]}, "x: expected 64 columns, got 32"),
        ({"x": X[:, :63]}, "x: expected a multiple of 32 columns, got 63"),
        ({"x": X.reshape(64, 3).T}, "x: expected rows contiguous in memory, got a stride of 3"),
        (EMPTY, "x: expected at least one row and one column, got an empty array"),
        ({"out": OUT[:, :19]}, r"out: expected \(3, 20\), got \(3, 19\)"),
        ({"bias": X[0, :3]}, "bias: expected 20 values, got 3"),
        ({"add": OUT[:2]}, r"add: expected \(3, 20\), got \(2, 20\)"),
        (BEYOND, "panel0, panel1: expected 0 <= panel0 < panel1 <= 2, got 1, 3"),
        ({"tile0": 1}, "tile0, tile1: expected 0 <= tile0 < tile1 <= 1, got 1, 1"),
        ({"rows": "ABF16"}, "rows: expected A32 or ABF16X2, got ABF16"),
        ({"weight": FLOATS, "rows": "ABF16X2"}, "rows: expected ABF16 for BF16, got ABF16X2"),
        ({"x": X.astype(np.float64)}, OTHER_TYPE),
        ({"x": X.astype(np.float16)}, OTHER_TYPE),
        ({"out": FROZEN}, OTHER_TYPE),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(isa: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError if message == OTHER_TYPE else ValueError, match=message):
        call(isa, change)
