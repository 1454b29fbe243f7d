"""Random weights as GGML blocks: mean 0, a given spread, the same bits for the same seed anywhere.

The bits are numpy's raw generators', which no version of numpy changes. Quants are uniform; a
block's scale is one of 32 around the one that gives the spread. Knows blocks, no files or models.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from octavo.weights.ggml_type import GGMLType

Bytes = NDArray[np.uint8]

_CHUNK_BLOCKS = 1 << 16


def chunks(type: GGMLType, count: int, spread: float, *, seed: int, name: str) -> Iterator[bytes]:
    """The bytes of `count` values of standard deviation `spread`. `name` makes streams differ."""
    draw = np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    blocks = count // type.block_values
    for begin in range(0, blocks, _CHUNK_BLOCKS):
        many = min(_CHUNK_BLOCKS, blocks - begin)
        scales = _around(_bytes(draw, many))
        yield _MAKERS[type](draw, many, scales * np.float32(spread)).tobytes()


def _bytes(draw: np.random.BitGenerator, count: int) -> Bytes:
    return draw.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


def _around(random: Bytes) -> NDArray[np.float32]:
    """From 0.76 to 1.24, whose mean square is 1 within 2 %."""
    return 0.76 + np.float32(0.48 / 31) * (random & 31).astype(np.float32)


def _half(values: NDArray[np.float32]) -> Bytes:
    return values.astype("<f2").view(np.uint8).reshape(-1, 2)


def _f32(draw: np.random.BitGenerator, values: int, spread: NDArray[np.float32]) -> Bytes:
    levels = _bytes(draw, values).astype(np.float32) - np.float32(127.5)
    return (levels * spread / _deviation(256)).astype("<f4").view(np.uint8)


def _q4_0(draw: np.random.BitGenerator, blocks: int, spread: NDArray[np.float32]) -> Bytes:
    # Quants are from -8 to 7: so that no row leans one way, every other block has a scale below 0.
    signs = np.where(np.arange(blocks) & 1, np.float32(-1), np.float32(1))
    scale = spread * signs / _deviation(16)
    return np.hstack([_half(scale), _bytes(draw, blocks * 16).reshape(-1, 16)])


def _q4_1(draw: np.random.BitGenerator, blocks: int, spread: NDArray[np.float32]) -> Bytes:
    scale = spread / _deviation(16)
    least = _half(scale * np.float32(-7.5))
    return np.hstack([_half(scale), least, _bytes(draw, blocks * 16).reshape(-1, 16)])


def _q8_0(draw: np.random.BitGenerator, blocks: int, spread: NDArray[np.float32]) -> Bytes:
    quants = _bytes(draw, blocks * 32).reshape(-1, 32)
    quants[quants == 128] = 0  # -128, which no quantiser writes
    return np.hstack([_half(spread / _deviation(255)), quants])


def _q4_k(draw: np.random.BitGenerator, blocks: int, spread: NDArray[np.float32]) -> Bytes:
    # Scale and minimum of a group have the same six bits, and a unit of minima is 7.5 of scales.
    sixes = 32 + (_bytes(draw, blocks * 8) & 31).reshape(-1, 8)
    scale = spread / (_deviation(16) * np.float32(math.sqrt(np.mean(np.arange(32, 64) ** 2))))
    first = sixes[:, :4] | (sixes[:, 4:] >> 4 << 6)
    low = (sixes[:, 4:] & 15) * 17
    quants = _bytes(draw, blocks * 128).reshape(-1, 128)
    return np.hstack([_half(scale), _half(scale * np.float32(7.5)), first, first, low, quants])


def _q6_k(draw: np.random.BitGenerator, blocks: int, spread: NDArray[np.float32]) -> Bytes:
    # Quants are from -32 to 31, scales of groups of 16 from -95 to -64 and from 64 to 95.
    low, high = (_bytes(draw, blocks * size).reshape(-1, size) for size in (128, 64))
    random = _bytes(draw, blocks * 16).reshape(-1, 16)
    sizes = (64 + (random & 31)).astype(np.int8)
    scales = np.where(random & 32, -sizes, sizes).astype(np.int8).view(np.uint8)
    unit = _deviation(64) * np.float32(math.sqrt(np.mean(np.arange(64, 96) ** 2)))
    return np.hstack([low, high, scales, _half(spread / unit)])


def _deviation(levels: int) -> np.float32:
    """The standard deviation of so many equally likely whole numbers in a row."""
    return np.float32(math.sqrt((levels**2 - 1) / 12))


_MAKERS: Mapping[GGMLType, Callable[[np.random.BitGenerator, int, NDArray[np.float32]], Bytes]] = {
    GGMLType.F32: _f32,
    GGMLType.Q4_0: _q4_0,
    GGMLType.Q4_1: _q4_1,
    GGMLType.Q8_0: _q8_0,
    GGMLType.Q4_K: _q4_k,
    GGMLType.Q6_K: _q6_k,
}
