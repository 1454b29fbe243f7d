"""Packed integer weights times rows of two bf16 terms: on every level inside a bound derived from
the terms left out and the roundings of sums. What all kinds of rows have in common: test_matmul."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import native
from octavo.weights.ggml_type import GGMLType
from tests.kernels import matmul_case as case
from tests.kernels import matmul_twin as twin
from tests.kernels.exact import F32, Floats
from tests.kernels.gguf_blocks import TYPE_OF, random_blocks, values_of
from tests.kernels.levels import ISAS, every_isa

LEFT_OUT = 2.0**-17  # of a value: half a unit in the last place of lo


def multiply(isa: str, weight: native.PackedWeight, x: Floats) -> Floats:
    return case.multiply(isa, weight, x, rows="ABF16X2")


def exact_values(weight: native.PackedWeight) -> NDArray[np.float64]:
    """scale * quant + min without any rounding, in float64."""
    return twin.unpack(weight).dequantize(np.float64)


def error_of(isa: str, weight: native.PackedWeight, x: Floats) -> NDArray[np.float64]:
    return np.abs(multiply(isa, weight, x) - x.astype(float) @ exact_values(weight).T)


def bound_of(weight: native.PackedWeight, x: Floats) -> NDArray[np.float64]:
    """Largest error of a sum.

    A chain of 16 dots rounds at most three times a dot, its two halves are added once, a sum of 32
    is a tree of depth 5, and a group adds two products to the sum over k.
    """
    w = twin.unpack(weight)
    groups = w.quants.shape[1] // w.scale_span
    offset = twin.OFFSET[weight.format]
    scales = np.repeat(np.abs(w.scales.astype(float)), w.scale_span, axis=1)
    mins = 0.0 if w.mins is None else np.repeat(np.abs(w.mins.astype(float)), w.scale_span, axis=1)
    terms = scales * (w.quants + offset) + scales * offset + mins
    size = np.abs(x).astype(float)
    left_out = LEFT_OUT * size @ np.abs(exact_values(weight)).T
    steps = 3 * 16 + 1 + 5 + 2 * groups + 2
    bound: NDArray[np.float64] = left_out + steps * case.EPS * 1.01 * (size @ terms.T)
    return bound


@every_isa
@settings(max_examples=25, deadline=None)
@given(product=case.products(case.TWO_TERMS), mean=st.sampled_from([0.0, 1.0, -30.0]))
def test_the_error_is_bounded(isa: str, product: case.Product, mean: float) -> None:
    weight, x, _, _ = product
    x = x + F32(mean)
    error, bound = error_of(isa, weight, x), bound_of(weight, x)
    assert np.all(error <= bound), (error / bound).max()


@every_isa
@case.every_format
def test_rows_are_nearly_float32(isa: str, fmt: str) -> None:
    """2^-17 of each value is left out at most; rows of one bf16 are wrong by 2^-10."""
    rng = np.random.default_rng(5)
    weight, x = case.make_weight(fmt, 64, 512, rng), case.normal(rng, 13, 512)
    exact = x.astype(float) @ exact_values(weight).T
    error = np.linalg.norm(error_of(isa, weight, x), axis=1)
    assert np.all(error <= 2.0**-16 * np.linalg.norm(exact, axis=1))


@every_isa
@case.every_format
@pytest.mark.parametrize("byte", [0x00, 0xFF])
def test_every_quant_is_exact(isa: str, fmt: str, byte: int) -> None:
    """All quants at one end, rows whose chains round nothing: only the sum over k does."""
    type = TYPE_OF[fmt]
    rng = np.random.default_rng(6)
    blocks = values_of(random_blocks(type, 33, 512, rng), type, byte)
    weight = native.pack_weight(case.POOL, blocks, type, 33, 512, fmt)
    x = rng.choice(np.array([-1.0, 0.5, 2.0], F32), (7, 512))
    w = twin.unpack(weight)
    terms = np.repeat(np.abs(w.scales.astype(float)), w.scale_span, axis=1) * 2 * twin.OFFSET[fmt]
    terms = terms + np.abs(exact_values(weight))
    bound = (2 * w.scales.shape[1] + 2) * case.EPS * (np.abs(x).astype(float) @ terms.T)
    assert np.all(error_of(isa, weight, x) <= bound)


@every_isa
def test_every_byte_of_w8_by_hand(isa: str) -> None:
    """One row for each byte, scale 1, times 1 at k = 0..31 in turn: the quant itself."""
    blocks = np.zeros((256, 34), np.uint8)
    blocks[:, :2] = np.array([1.0], np.float16).view(np.uint8)
    blocks[:, 2:] = np.arange(256, dtype=np.uint8)[:, None]
    weight = native.pack_weight(case.POOL, blocks.reshape(-1), GGMLType.Q8_0, 256, 32, "W8")
    got = multiply(isa, weight, np.eye(32, dtype=F32))
    assert np.array_equal(got, np.tile(np.arange(256, dtype=np.uint8).view(np.int8), (32, 1)))


def test_a_value_split_by_hand() -> None:
    """1 + 2^-9 + 2^-16 is hi 1 and lo 2^-9 + 2^-16; both wait in the low halves of rows 0 and 2."""
    if "avx512bf16" not in ISAS:
        pytest.skip("this machine has no bf16 dots")
    x = np.zeros((1, 32), F32)
    x[0, 0] = 1 + 2.0**-9 + 2.0**-16
    x[0, 31] = -2
    words = np.frombuffer(native.quantize("avx512bf16", x, "ABF16X2"), np.uint32)
    assert words[[0, 1, 2, 3]].tolist() == [0x3F80, 0, 0x3B01, 0]
    assert words[[28, 29, 30, 31]].tolist() == [0, 0xC0000000, 0, 0]
    assert words[32:].view(F32).tolist() == [x[0, 0] - 2, x[0, 0], -2]
