"""Dequantisation in numpy: GGML blocks in, float32 out, slow and obvious.

The oracle for the packers of the compiled core, and the reference interpreter's way to weights.
Bit-exact with GGML: float32 products of scales and small integers, in GGML's order; but MXFP4's
scale 255, a NaN, is refused.
Knows blocks only; files and kernel layouts are elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError
from octavo.weights.ggml_type import GGMLType

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CHUNK_VALUES = 1 << 19  # bounds the temporaries, a few MB, whatever the tensor's size


def dequantize(type: GGMLType, data: Bytes, shape: tuple[int, ...]) -> Floats:
    """`data` (nbytes,) uint8 as float32 of `shape`, whose last dimension is whole blocks."""
    num_blocks, rest = divmod(int(np.prod(shape)), type.block_values)
    if rest or shape[-1] % type.block_values or data.size != num_blocks * type.block_bytes:
        raise ModelFormatError(
            f"{type.name} tensor of shape {shape}: expected {num_blocks * type.block_bytes} bytes "
            f"in rows of {type.block_values}-value blocks, found {data.size}"
        )
    blocks = data.reshape(num_blocks, type.block_bytes)
    out = np.empty((num_blocks, type.block_values), np.float32)
    decode = _DECODERS[type]
    step = _CHUNK_VALUES // type.block_values
    for start in range(0, num_blocks, step):
        out[start : start + step] = decode(blocks[start : start + step])
    return out.reshape(shape)


def _view(blocks: Bytes, dtype: str) -> npt.NDArray[np.generic]:
    """A slice of each block (n, bytes) read as little-endian numbers (n, bytes / itemsize)."""
    return np.ascontiguousarray(blocks).view(dtype)


def _half(blocks: Bytes) -> Floats:
    return _view(blocks, "<f2").astype(np.float32)


def _f32(blocks: Bytes) -> Floats:
    return _view(blocks, "<f4").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (_view(blocks, "<u2").astype(np.uint32) << 16).view(np.float32)


def _nibbles(packed: Bytes, group: int) -> npt.NDArray[np.int32]:
    """(n, bytes) to (n, 2 * bytes): each run of `group` bytes is its low halves, then its high."""
    runs = packed.reshape(len(packed), -1, 1, group).astype(np.int32)
    both = np.concatenate([runs & 15, runs >> 4], axis=2)
    return both.reshape(len(packed), -1)


def _fifth_bits(packed: Bytes) -> npt.NDArray[np.int32]:
    """(n, 4) to (n, 32) of 0 or 16: bit i of the little-endian word belongs to value i."""
    return np.unpackbits(packed, axis=1, bitorder="little").astype(np.int32) << 4


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:], 16) - 8).astype(np.float32)


def _q4_1(blocks: Bytes) -> Floats:
    quants = _nibbles(blocks[:, 4:], 16).astype(np.float32)
    return _half(blocks[:, :2]) * quants + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    quants = _nibbles(blocks[:, 6:], 16) + _fifth_bits(blocks[:, 2:6]) - 16
    return _half(blocks[:, :2]) * quants.astype(np.float32)


def _q5_1(blocks: Bytes) -> Floats:
    quants = _nibbles(blocks[:, 8:], 16) + _fifth_bits(blocks[:, 4:8])
    return _half(blocks[:, :2]) * quants.astype(np.float32) + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * _view(blocks[:, 2:], "i1").astype(np.float32)


def _k_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """(n, 12) to scales and minima (n, 8): six bits each, for the eight groups of 32 values.

    Bytes 0-3 and 4-7 hold the low six bits of groups 0-3, and in their top two bits the top two
    of groups 4-7, whose low four share bytes 8-11: scales in the low nibble, minima in the high.
    """
    first, second, low = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (low & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (low >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_affine(blocks: Bytes, quants: npt.NDArray[np.int32]) -> Floats:
    """d * scale * q - dmin * minimum for the types that open with d, dmin and packed scales."""
    scales, minima = _k_scales(blocks[:, 4:16])
    scales *= _half(blocks[:, :2])  # (n, 8)
    minima *= _half(blocks[:, 2:4])
    groups = quants.reshape(len(blocks), 8, 32).astype(np.float32)
    return (scales[:, :, None] * groups - minima[:, :, None]).reshape(len(blocks), 256)


def _q4_k(blocks: Bytes) -> Floats:
    return _k_affine(blocks, _nibbles(blocks[:, 16:], 32))


def _q5_k(blocks: Bytes) -> Floats:
    # Byte j of the 32 high bytes holds value j of all eight groups, group g in bit g.
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # (n, 8, 32)
    return _k_affine(
        blocks, _nibbles(blocks[:, 48:], 32) + (high.reshape(-1, 256).astype(np.int32) << 4)
    )


def _q6_k(blocks: Bytes) -> Floats:
    low = _nibbles(blocks[:, :128], 64)  # two halves of 128 values, each 64 low, 64 high nibbles
    high = (
        blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    )
    quants = low + (high.reshape(-1, 256).astype(np.int32) << 4) - 32
    scales = _half(blocks[:, 208:]) * _view(blocks[:, 192:208], "i1").astype(np.float32)  # (n, 16)
    groups = quants.reshape(-1, 16, 16).astype(np.float32)
    return (scales[:, :, None] * groups).reshape(-1, 256)


def _two_bits(packed: Bytes) -> npt.NDArray[np.int32]:
    """(n, 64) to (n, 256): each half of the bytes holds four runs of 32 values, the lowest bits
    first."""
    runs = packed.reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    return runs.reshape(-1, 256).astype(np.int32)


def _q2_k(blocks: Bytes) -> Floats:
    scales = _half(blocks[:, 80:82]) * (blocks[:, :16] & 15).astype(np.float32)  # (n, 16)
    minima = _half(blocks[:, 82:]) * (blocks[:, :16] >> 4).astype(np.float32)
    groups = _two_bits(blocks[:, 16:80]).reshape(-1, 16, 16).astype(np.float32)
    return (scales[:, :, None] * groups - minima[:, :, None]).reshape(-1, 256)


def _q3_k(blocks: Bytes) -> Floats:
    # Byte j of the 32 high bytes holds value j of all eight runs of 32, run g in bit g.
    high = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None] & 1  # (n, 8, 32)
    quants = _two_bits(blocks[:, 32:96]) + (high.reshape(-1, 256).astype(np.int32) << 2) - 4
    # Sixteen scales of six bits: nibbles, low ones first, then two bits each, four to a byte.
    tops = blocks[:, None, 104:108] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    small = _nibbles(blocks[:, 96:104], 8) + (tops.reshape(-1, 16).astype(np.int32) << 4) - 32
    scales = _half(blocks[:, 108:]) * small.astype(np.float32)
    groups = quants.reshape(-1, 16, 16).astype(np.float32)
    return (scales[:, :, None] * groups).reshape(-1, 256)


# What the nibbles of IQ4_NL and IQ4_XS stand for.
_TABLE = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)


def _iq4_nl(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * _TABLE[_nibbles(blocks[:, 2:], 16)]


def _iq4_xs(blocks: Bytes) -> Floats:
    # Eight scales of six bits: two high bits each in one number, the low four as nibbles.
    tops = _view(blocks[:, 2:4], "<u2").astype(np.int32) >> np.arange(0, 16, 2) & 3  # (n, 8)
    small = _nibbles(blocks[:, 4:8], 1) + (tops << 4) - 32
    scales = _half(blocks[:, :2]) * small.astype(np.float32)
    groups = _TABLE[_nibbles(blocks[:, 8:], 16)].reshape(-1, 8, 32)
    return (scales[:, :, None] * groups).reshape(-1, 256)


# What the nibbles of MXFP4 stand for, doubled.
_FLOATS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _mxfp4(blocks: Bytes) -> Floats:
    exponents = blocks[:, :1].astype(np.int32)
    if np.any(exponents == 255):
        raise ModelFormatError("a scale of MXFP4 is NaN (255)")
    return np.ldexp(np.float32(1), exponents - 128) * _FLOATS[_nibbles(blocks[:, 1:], 16)]


_DECODERS: Mapping[GGMLType, Callable[[Bytes], Floats]] = MappingProxyType(
    {
        GGMLType.F32: _f32,
        GGMLType.F16: _half,
        GGMLType.BF16: _bf16,
        GGMLType.Q4_0: _q4_0,
        GGMLType.Q4_1: _q4_1,
        GGMLType.Q5_0: _q5_0,
        GGMLType.Q5_1: _q5_1,
        GGMLType.Q8_0: _q8_0,
        GGMLType.Q4_K: _q4_k,
        GGMLType.Q5_K: _q5_k,
        GGMLType.Q6_K: _q6_k,
        GGMLType.Q2_K: _q2_k,
        GGMLType.Q3_K: _q3_k,
        GGMLType.IQ4_NL: _iq4_nl,
        GGMLType.IQ4_XS: _iq4_xs,
        GGMLType.MXFP4: _mxfp4,
    }
)
