"""What formats make of numbers, in numpy: those that rows are packed in, and those of pages."""

from __future__ import annotations

import numpy as np

from octavo.batch import FloatArray


def round_bf16(x: FloatArray) -> FloatArray:
    """Round to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def round_int8(x: FloatArray) -> FloatArray:
    """Round to the A32 grid: int8 with one float32 scale for each 32 columns (csrc/formats.h)."""
    return round_int8_rows(x.reshape(*x.shape[:-1], -1, 32)).reshape(x.shape)


def round_int8_rows(x: FloatArray) -> FloatArray:
    """Round to the grid of int8 pages, one scale for each row (csrc/kernels/kv_int8.h)."""
    peak = np.abs(x).max(axis=-1, keepdims=True)
    scale = (peak / np.float32(127)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(peak > 1e-30, np.float32(127) / peak, 0).astype(np.float32)
    rounded: FloatArray = (np.rint(x * inverse) * scale).astype(np.float32)
    return rounded


def round_int8_keys(x: FloatArray) -> FloatArray:
    """Round rows of K or q as int8 pages do, which rotate both."""
    return round_int8_rows(rotate(x))


def round_int4_keys(x: FloatArray) -> FloatArray:
    """Round rows of K as int4 pages do; q that meets them is as with int8."""
    return round_int4_rows(rotate(x))


def round_int4_rows(x: FloatArray) -> FloatArray:
    """Round to the grid of int4 pages, a scale and a min for 32 values (csrc/kernels/kv_int4.h)."""
    groups = [x[..., d : d + 32] for d in range(0, x.shape[-1], 32)]
    return np.concatenate([_round_int4_group(group) for group in groups], axis=-1)


def _round_int4_group(x: FloatArray) -> FloatArray:
    top, bottom = x.max(axis=-1, keepdims=True), x.min(axis=-1, keepdims=True)
    scale, least = (
        np.clip(each, -65504, 65504).astype(np.float16).astype(np.float32)
        for each in ((top - bottom) / np.float32(15), bottom)
    )
    inverse = np.float32(1) / np.where(scale > 0, scale, np.float32(np.inf))
    steps = np.rint(np.clip((x - least) * inverse, 0, 15))
    rounded: FloatArray = (steps * scale + least).astype(np.float32)
    return rounded


def rotate(x: FloatArray) -> FloatArray:
    """Multiply rows by an orthonormal Hadamard matrix, in blocks of the largest power of two that
    divides them, in the order of csrc/kernels/rotate.h."""
    block = x.shape[-1] & -x.shape[-1]
    power = block.bit_length() - 1
    scale = np.float32(1 if power % 2 == 0 else 0.707106781) / np.float32(2 ** (power // 2))
    for distance in (1 << i for i in range(power)):
        if distance == 16:
            x = x * scale
        pairs = x.reshape(*x.shape[:-1], -1, 2, distance)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], axis=-2).reshape(x.shape)
    return x * scale if block <= 16 else x
