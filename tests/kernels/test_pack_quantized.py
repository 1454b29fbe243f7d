"""Floats packed as W8 and W4S: the bits of what the `gguf` package quantises, once packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import native
from octavo.weights.ggml_type import GGMLType
from tests.kernels.exact import from_bf16, to_bf16
from tests.kernels.matmul_twin import unpack

POOLS = [native.ThreadPool(1), native.ThreadPool(2)]
TYPES = {"W8": GGMLType.Q8_0, "W4S": GGMLType.Q4_0}
every_format = pytest.mark.parametrize("format", TYPES)


def quantised(values: NDArray[Any], format: str) -> native.PackedWeight:
    """As the oracle does it."""
    type = TYPES[format]
    blocks = quants.quantize(values, GGMLQuantizationType(type)).reshape(-1)
    rows, cols = values.shape
    return native.pack_weight(POOLS[0], blocks, type, rows, cols, format)


def packed(
    values: NDArray[Any], format: str, type: GGMLType = GGMLType.F32, threads: int = 2
) -> native.PackedWeight:
    raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    rows, cols = values.shape
    return native.pack_weight(POOLS[threads - 1], raw, type, rows, cols, format)


def drawn(rows: int, cols: int) -> NDArray[np.float32]:
    """Rows of very different sizes; a block of zeros, and one full of halves and equal sizes."""
    rng = np.random.default_rng(rows * cols)
    sizes = 10 ** rng.uniform(-7, 4, (rows, 1))
    values = (rng.standard_normal((rows, cols)) * sizes).astype(np.float32)
    values[0, :32] = 0
    values[-1, -32:] = rng.integers(-254, 255, 32) / np.float32(2)
    values[-1, -32:-30] = 127, -127
    return values


@every_format
@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("rows", [1, 16, 35])
@pytest.mark.parametrize("cols", [32, 64, 512, 544, 1120])  # around a chunk of 512
def test_floats_are_quantised_as_gguf_does_it(format: str, type: str, rows: int, cols: int) -> None:
    values: NDArray[Any] = drawn(rows, cols)
    stored = values
    if type == "F16":
        stored = values.astype(np.float16)
        values = stored.astype(np.float32)
    elif type == "BF16":
        stored = to_bf16(values)
        values = from_bf16(stored)
    want = quantised(values, format).view()
    for threads in (1, 2):
        got = packed(stored, format, GGMLType[type], threads).view()
        np.testing.assert_array_equal(got, want)


@every_format
@settings(max_examples=60, deadline=None)
@given(bits=st.lists(st.integers(0x2F80, 0x46FF), min_size=32, max_size=32), signs=st.data())
def test_any_bf16_values_are_quantised_as_gguf_does_it(
    format: str, bits: list[int], signs: st.DataObject
) -> None:
    sign = signs.draw(st.lists(st.sampled_from([0, 0x8000]), min_size=32, max_size=32))
    stored = (np.array([bits]) | np.array([sign])).astype(np.uint16)
    want = quantised(from_bf16(stored), format).view()
    np.testing.assert_array_equal(packed(stored, format, GGMLType.BF16).view(), want)


@every_format
def test_every_scale_is_rounded_as_numpy_rounds_it(format: str) -> None:
    """From scales that fp16 has as subnormals to the largest that it has."""
    bits = np.arange(0x2C000000, 0x4A7D0000, 0x7777, dtype=np.uint32)
    steps = bits[bits.view(np.float32) < 8 * 65519]
    values = np.zeros((1, len(steps) * 32), np.float32)
    values[0, 7::32] = steps.view(np.float32)
    np.testing.assert_array_equal(packed(values, format).view(), quantised(values, format).view())


@every_format
@pytest.mark.parametrize("size", [1e-45, 1e-40, 3e-38, 1e-7])
def test_a_block_too_small_for_a_scale_is_zero(format: str, size: float) -> None:
    values = np.full((1, 32), size, np.float32)
    values[0, ::2] *= -1
    assert not unpack(packed(values, format)).dequantize().any()


@every_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 127.0 * 65520])
def test_values_without_a_scale_are_refused(format: str, bad: float) -> None:
    values = drawn(35, 1120)
    values[20, 700] = bad
    for threads in (1, 2):
        with pytest.raises(OverflowError, match="values that are not finite, or too large"):
            packed(values, format, threads=threads)


def test_what_is_no_float_is_not_quantised() -> None:
    blocks = np.zeros(34, np.uint8)
    with pytest.raises(ValueError, match="expected W8, BF16 or F32 for Q8_0, got W4S"):
        native.pack_weight(POOLS[0], blocks, GGMLType.Q8_0, 1, 32, "W4S")
    with pytest.raises(ValueError, match="expected W8, W4S, BF16 or F32 for BF16, got W4K"):
        native.pack_weight(POOLS[0], np.zeros(512, np.uint8), GGMLType.BF16, 1, 256, "W4K")
