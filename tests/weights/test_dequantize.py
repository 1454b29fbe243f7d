"""Dequantisers against the `gguf` package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from octavo.errors import ModelFormatError
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from tests.kernels.gguf_blocks import HALFS_AT


def random_blocks(type_: GGMLType, count: int, seed: int) -> np.ndarray:
    """(count, block_bytes) uint8: any bits, but scales are finite (denormals and -0 included)."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, type_.block_bytes), dtype=np.uint8)
    for offset in HALFS_AT.get(type_, (0,)) if type_.block_values > 1 else ():
        bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
        bits[(bits & 0x7C00) == 0x7C00] = 0x3C00  # no infinities, no NaN
        bits[:4] = [0x0000, 0x8000, 0x0001, 0x83FF]
        blocks[:, offset : offset + 2] = bits.astype("<u2").view(np.uint8).reshape(count, 2)
    if type_ is GGMLType.MXFP4:
        blocks[:, 0] %= 250  # above, 12 times its half is no float
    return blocks


@pytest.mark.parametrize("type_", GGMLType)
def test_equals_the_gguf_package_bit_for_bit(type_: GGMLType) -> None:
    blocks = random_blocks(type_, count=600, seed=int(type_))
    data = blocks.reshape(5, -1)  # five rows of 120 blocks
    kind = gguf.GGMLQuantizationType(int(type_))
    assert kind.name == type_.name
    assert gguf.GGML_QUANT_SIZES[kind] == (type_.block_values, type_.block_bytes)
    with np.errstate(invalid="ignore"):  # random bits as F32 may be signalling NaN
        want = gguf.quants.dequantize(data, kind)
        got = dequantize(type_, data.reshape(-1), (5, 120 * type_.block_values))
    assert got.dtype == np.float32
    assert got.shape == want.shape
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def test_more_blocks_than_one_chunk_are_decoded_alike() -> None:
    blocks = random_blocks(GGMLType.Q4_1, count=(1 << 14) + 3, seed=1)
    whole = dequantize(GGMLType.Q4_1, blocks.reshape(-1), (len(blocks), 32))
    tail = dequantize(GGMLType.Q4_1, blocks[-5:].reshape(-1), (5, 32))
    np.testing.assert_array_equal(whole[-5:], tail)


def test_a_q4_1_block_by_hand() -> None:
    """d = 0.5, m = -1, byte i holds i low and 15 - i high: value i is i / 2 - 1, i + 16 mirrors."""
    head = np.array([0.5, -1.0], "<f2").view(np.uint8)
    quants = np.array([i | (15 - i) << 4 for i in range(16)], np.uint8)
    got = dequantize(GGMLType.Q4_1, np.concatenate([head, quants]), (32,))
    rising = [i / 2 - 1 for i in range(16)]
    assert got.tolist() == rising + rising[::-1]


@pytest.mark.parametrize(
    ("nbytes", "shape"), [(17, (32,)), (36, (32,)), (18, (2, 16)), (18, (33,))]
)
def test_bytes_that_do_not_make_the_shape_are_refused(nbytes: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFormatError, match=r"Q4_0 tensor of shape .* bytes .* found"):
        dequantize(GGMLType.Q4_0, np.zeros(nbytes, np.uint8), shape)


def test_mxfp4s_scale_that_is_no_number_is_refused() -> None:
    block = np.full(17, 255, np.uint8)
    with pytest.raises(ModelFormatError, match=r"a scale of MXFP4 is NaN \(255\)"):
        dequantize(GGMLType.MXFP4, block, (32,))
