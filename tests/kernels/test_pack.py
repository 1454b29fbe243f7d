"""Packing: GGUF blocks become panels without losing a bit, whatever the shape and the threads."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import native
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from tests.kernels.exact import from_bf16, to_bf16
from tests.kernels.gguf_blocks import HALFS_AT, OWN_FORMAT, random_blocks
from tests.kernels.matmul_twin import SUPERTILE_BYTES, unpack, unpack_floats

POOL = native.ThreadPool(2)
every_type = pytest.mark.parametrize("type", GGMLType, ids=lambda t: t.name)
every_quantised_type = pytest.mark.parametrize("type", OWN_FORMAT, ids=lambda t: t.name)


def pack(
    blocks: NDArray[np.uint8], type: int, rows: int, cols: int, fmt: str | None = None
) -> native.PackedWeight:
    """In the type's own format, unless another is given."""
    return native.pack_weight(POOL, blocks, type, rows, cols, fmt or OWN_FORMAT[GGMLType(type)])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@every_quantised_type
def test_a_quantised_type_comes_back_as_ggml_has_it(type: GGMLType, data: st.DataObject) -> None:
    rows, groups = data.draw(st.integers(1, 70)), data.draw(st.sampled_from([1, 3, 7, 18]))
    cols = groups * type.block_values
    blocks = random_blocks(type, rows, cols, np.random.default_rng(rows * cols))
    weight = pack(blocks, type, rows, cols)
    assert (weight.rows, weight.cols, weight.format) == (rows, cols, OWN_FORMAT[type])
    assert weight.panels == -(-rows // 16)
    want = dequantize(type, blocks, (rows, cols))
    np.testing.assert_array_equal(unpack(weight).dequantize(), want)


def test_a_q4_1_block_by_hand() -> None:
    """Value i of a block is nibble i, low first, times d plus m: 0.5 * q - 1 here."""
    block = np.zeros(20, np.uint8)
    block[0:4] = np.array([0.5, -1.0], np.float16).view(np.uint8)
    block[4:] = np.arange(16, dtype=np.uint8) | np.arange(15, -1, -1, dtype=np.uint8) << 4
    weight = pack(block, GGMLType.Q4_1, 1, 32)
    got = unpack(weight)
    assert got.quants.tolist() == [[*range(16), *range(15, -1, -1)]]
    assert (got.scales.tolist(), got.mins.tolist()) == ([[0.5]], [[-1.0]])
    view = weight.view()
    assert view.size == 640
    # row 0, step 0 and 4
    assert view[:4].tolist() == [0 | 15 << 4, 1 | 14 << 4, 2 | 13 << 4, 3 | 12 << 4]
    assert view[4:64].max() == 0  # rows 1..15 do not exist


@every_quantised_type
def test_quants_and_scales_of_extreme_bytes_survive(type: GGMLType) -> None:
    """All bits set: the largest quant everywhere, and K-quants' largest 6-bit scales."""
    blocks = np.full(16 * type.block_bytes, 0xFF, np.uint8).reshape(16, -1)
    for at in HALFS_AT.get(type, (0,)):
        blocks[:, at : at + 2] = np.array([0.25], np.float16).view(np.uint8)
    if type is GGMLType.MXFP4:
        blocks[:, 0] = 128 - 2
    got = unpack(pack(blocks.reshape(-1), type, 16, type.block_values))
    largest = {
        "W8": -1, "W4S": 7, "W4A": 15, "W5S": 15, "W5A": 31, "W4K": 15, "W5K": 31, "W6K": 31,
        "W2K": 3, "W3K": 3, "W4T": 113, "W4TK": 113, "W4F": -12,
    }  # fmt: skip
    scale = {
        "W4K": 63 / 4, "W5K": 63 / 4, "W6K": -1 / 4, "W2K": 15 / 4, "W3K": 31 / 4, "W4TK": 31 / 4,
    }.get(OWN_FORMAT[type], 0.25)  # fmt: skip
    assert np.unique(got.quants).tolist() == [largest[OWN_FORMAT[type]]]
    assert np.unique(got.scales).tolist() == [scale]


EXPONENTS = range(128 - 24, 128 + 16)  # of MXFP4, those that fp16 has


def mxfp4(exponents: Sequence[int], nibbles: int) -> NDArray[np.uint8]:
    """A row a block, each with every nibble twice or with one value everywhere."""
    pairs = np.arange(16) * 17 if nibbles < 0 else np.full(16, nibbles * 17)
    return np.array([[exponent, *pairs] for exponent in exponents], np.uint8).reshape(-1)


def test_scales_of_mxfp4_are_kept_exactly_where_fp16_has_them() -> None:
    got = unpack(pack(mxfp4(EXPONENTS, -1), GGMLType.MXFP4, len(EXPONENTS), 32))
    values = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
    want = np.outer(2.0 ** (np.array(EXPONENTS) - 127), values * 2)
    assert np.array_equal(got.dequantize(), want)


@pytest.mark.parametrize("exponent", [0, EXPONENTS[0] - 1, EXPONENTS[-1] + 1, 254])
@pytest.mark.parametrize("place", [0, 5, 18])
def test_other_scales_of_mxfp4_are_refused_but_where_all_is_zero(exponent: int, place: int) -> None:
    exponents = [127] * 19
    exponents[place] = exponent
    for zero in (0, 8):
        got = unpack(pack(mxfp4(exponents, zero), GGMLType.MXFP4, 19, 32)).dequantize()
        assert not got.any()
    blocks = mxfp4(exponents, 1)
    with pytest.raises(OverflowError, match=r"MXFP4 that is NaN \(255\), or outside fp16's 2\^-24"):
        pack(blocks, GGMLType.MXFP4, 19, 32)
    values = unpack_floats(pack(blocks, GGMLType.MXFP4, 19, 32, "BF16"))
    assert np.array_equal(values[place], np.full(32, 0.5 * 2.0 ** (exponent - 127)))


@pytest.mark.parametrize("format", ["W4F", "BF16", "F32"])
def test_mxfp4s_scale_that_is_no_number_is_refused(format: str) -> None:
    for nibbles in (0, 3):
        with pytest.raises(OverflowError, match=r"a scale of MXFP4 that is NaN \(255\)"):
            pack(mxfp4([127, 255], nibbles), GGMLType.MXFP4, 2, 32, format)


@every_type
@pytest.mark.parametrize("rows", [1, 16, 35])
def test_any_type_becomes_f32_exactly_and_bf16_rounded_to_even(type: GGMLType, rows: int) -> None:
    cols = 3 * type.block_values if type.block_values > 1 else 291
    blocks = random_blocks(type, rows, cols, np.random.default_rng(rows))
    values = dequantize(type, blocks, (rows, cols))
    for fmt, want in (("F32", values), ("BF16", from_bf16(to_bf16(values)))):
        weight = pack(blocks, type, rows, cols, fmt)
        np.testing.assert_array_equal(unpack_floats(weight), want)


def test_bf16_keeps_ties_nan_inf_and_denormals() -> None:
    bits = np.array(
        [0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F7FFFFF,
         0x00008000, 0x00018000, 0x80000001], np.uint32)  # fmt: skip
    weight = pack(bits.view(np.uint8), GGMLType.F32, 1, 10, "BF16")
    got = unpack_floats(weight).view(np.uint32)[0] >> 16
    assert [hex(v) for v in got] == [
        "0x3f80", "0x3f82", "0x3f81", "0x7f80", "0xff80", "0x7fc0", "0x7f80",
        "0x0", "0x2", "0x8000",
    ]  # fmt: skip


def test_every_f16_pattern_becomes_the_same_f32() -> None:
    halfs = np.arange(65536, dtype=np.uint16)
    weight = pack(halfs.view(np.uint8), GGMLType.F16, 16, 4096, "F32")
    want = halfs.view(np.float16).astype(np.float32).reshape(16, 4096)
    np.testing.assert_array_equal(unpack_floats(weight), want)


@pytest.mark.parametrize(
    ("type", "cols"), [(GGMLType.Q4_1, 96), (GGMLType.Q6_K, 256), (GGMLType.F32, 3)]
)
def test_what_no_row_or_column_owns_is_zero(type: GGMLType, cols: int) -> None:
    """17 rows are two panels, 96 columns one and a half supertiles."""
    fmt = OWN_FORMAT.get(type, "BF16")
    blocks = random_blocks(type, 17, cols, np.random.default_rng(1))
    last = pack(blocks, type, 17, cols, fmt).view().reshape(2, -1)[1]
    if fmt == "BF16":
        assert last.view(np.uint16).reshape(-1, 16, 2)[:, 1:].max() == 0
        assert last.view(np.uint16).reshape(-1, 16, 2)[1, 0, 1] == 0  # the pair's missing column
    elif fmt == "W4A":
        tiles = last.reshape(-1, SUPERTILE_BYTES[fmt])
        assert tiles[1, 256:512].max() == 0
        assert tiles[:, 512:].view(np.uint16).reshape(2, 4, 16)[:, :, 1:].max() == 0
    else:
        assert last[3072:].view(np.uint8)[: 16 * 16].reshape(16, 16)[:, 1:].max() == 0


@every_type
def test_threads_do_not_change_a_byte(type: GGMLType) -> None:
    cols = 2 * max(type.block_values, 128)
    blocks = random_blocks(type, 4000, cols, np.random.default_rng(2))
    one, two, three = (
        native.pack_weight(pool, blocks, type, 4000, cols, OWN_FORMAT.get(type, "BF16")).view()
        for pool in map(native.ThreadPool, (1, 2, 3))
    )
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(three, one)


def test_weights_share_one_memory_until_it_is_full() -> None:
    size = native.packed_nbytes(16, 64, "W4A")
    assert size == 640
    memory = native.WeightMemory(2 * size)
    first, second = (native.PackedWeight(16, 64, "W4A", memory) for _ in range(2))
    assert (memory.used, memory.capacity) == (1280, 1280)
    assert second.view().ctypes.data - first.view().ctypes.data == 640
    assert first.view().ctypes.data % (2 << 20) == 0
    with pytest.raises(ValueError, match="memory: 640 bytes asked for, 0 of 1280 left"):
        native.PackedWeight(16, 64, "W4A", memory)


def test_a_view_is_read_only_and_keeps_its_memory() -> None:
    blocks = random_blocks(GGMLType.Q8_0, 64, 64, np.random.default_rng(3))
    memory = native.WeightMemory(1 << 20)
    weight = native.pack_weight(POOL, blocks, GGMLType.Q8_0, 64, 64, "W8", memory)
    del memory
    view, copy = weight.view(), weight.view().copy()
    del weight
    gc.collect()
    np.testing.assert_array_equal(view, copy)
    assert not view.flags.writeable


def test_bytes_packed_before_can_be_used_again() -> None:
    blocks = random_blocks(GGMLType.Q4_0, 20, 96, np.random.default_rng(4))
    weight = pack(blocks, GGMLType.Q4_0, 20, 96)
    again = native.PackedWeight(weight.view(), 20, 96, "W4S")
    del weight
    gc.collect()
    values = unpack(again).dequantize()
    np.testing.assert_array_equal(values, dequantize(GGMLType.Q4_0, blocks, (20, 96)))


Q4 = GGMLType.Q4_1
RAW = random_blocks(Q4, 2, 64, np.random.default_rng(5))
CUT, BYTES = RAW[:-1], np.zeros(639, np.uint8)
HUGE = 2**31 - 17, 2**31 - 257, "F32"  # 2^64 bytes would be a few as an int64
OTHER_TYPE = "incompatible function arguments"
WIDE = r"cols: W6K takes positive multiples of 256 below 2\^31, got 128"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pack(CUT, Q4, 2, 64), r"src: expected 80 bytes for Q4_1 \(2, 64\), got 79"),
        (lambda: pack(RAW, Q4, 2, 60), "cols: expected a multiple of 32 for Q4_1, got 60"),
        (lambda: pack(RAW, Q4, 2, 64, "W8"), "format: expected W4A, BF16 or F32 for Q4_1, got W8"),
        (lambda: pack(RAW, Q4, 2, 64, "W3"), "format: expected one of W8, W4S, .* got W3"),
        (lambda: pack(RAW, 9, 2, 64, "W4A"), "ggml_type: expected one of F32, .* got type 9"),
        (lambda: pack(RAW, Q4, 0, 64), r"rows: expected 1\.\.2\^31-17, got 0"),
        (lambda: native.PackedWeight(1, 128, "W6K"), WIDE),
        (lambda: native.PackedWeight(*HUGE), r"rows and cols: expected at most 2\^46 bytes"),
        (lambda: native.PackedWeight(BYTES, 16, 64, "W4A"), "data: expected 640 bytes, got 639"),
        (lambda: native.WeightMemory(-1), r"nbytes: expected 0\.\.2\^46, got -1"),
        (lambda: pack(RAW[::2], Q4, 2, 64), OTHER_TYPE),  # not contiguous
        (lambda: pack(RAW.astype(np.int16), Q4, 2, 64), OTHER_TYPE),
    ],
)
def test_what_cannot_be_packed_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError if message == OTHER_TYPE else ValueError, match=message):
        make()
