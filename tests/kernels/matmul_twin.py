"""The matmul kernels in numpy: the same numbers, bit for bit, from the same packed bytes.

Reads the layouts of csrc/formats.h on its own, so that a mistake in a packer or a kernel shows.
Slow and obvious. `fma` says how the level adds a product: rounded once, or (base) twice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels.exact import fma32
from tests.kernels.quantize_twin import (
    Floats,
    Ints,
    Quantized,
    from_bf16,
    quantize_rows,
    row_sums,
    tiles_of,
    to_bf16,
)

SPAN = {"W8": 64, "W4S": 64, "W4A": 64, "W5S": 64, "W5A": 64, "W4K": 256, "W5K": 256, "W6K": 256}
SUPERTILE_BYTES = {
    "W8": 1088, "W4S": 576, "W4A": 640, "W5S": 704, "W5A": 768,
    "W4K": 2368, "W5K": 2880, "W6K": 3392,
}  # fmt: skip
ZERO_POINT = {"W8": 128, "W4S": 8, "W5S": 16, "W6K": 32}
# What ABF16X2 kernels add to quants: the zero point, and 2^bits (W8's bits fill a bf16 without it).
OFFSET = {
    "W8": 128, "W4S": 24, "W4A": 16, "W5S": 48, "W5A": 32, "W4K": 16, "W5K": 32, "W6K": 96,
}  # fmt: skip


@dataclass(frozen=True)
class Unpacked:
    """A packed integer weight: value = scale * quant (+ min), zero point already taken off."""

    quants: Ints  # (rows, K)
    scales: Floats  # (rows, K / scale_span)
    mins: Floats | None  # (rows, K / 32)
    scale_span: int  # 32, or 16 for W6K

    def dequantize(self) -> Floats:
        """(rows, K): products are exact in float32, the sum with the min rounds once."""
        values = self.quants.astype(np.float32) * np.repeat(self.scales, self.scale_span, axis=1)
        return values if self.mins is None else values + np.repeat(self.mins, 32, axis=1)


class _Reader:
    """Takes the parts of a supertile one after the other: (panels, supertiles, bytes)."""

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self.raw = raw
        self.at = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        part = self.raw[..., self.at : self.at + count]
        self.at += count
        assert part.shape[-1] == count
        return np.ascontiguousarray(part)

    def halfs(self, count: int) -> Floats:
        return self.take(2 * count).view(np.float16).astype(np.float32)


def _by_row(values: NDArray, weight: native.PackedWeight, columns: int) -> NDArray:
    """(panels, supertiles, x, 16) to (rows, columns)."""
    panels, supertiles, inner, lanes = values.shape
    rows = values.transpose(0, 3, 1, 2).reshape(panels * lanes, supertiles * inner)
    return rows[: weight.rows, :columns]


def _quants(reader: _Reader, fmt: str, groups: int) -> Ints:
    """(panels, supertiles, groups * 32, 16) unsigned."""
    lead = reader.raw.shape[:2]
    if fmt == "W8":
        steps = reader.take(groups * 512).reshape(*lead, groups, 8, 16, 4)
    else:
        both = reader.take(groups * 256).reshape(*lead, groups, 4, 16, 4)
        steps = np.concatenate([both & 15, both >> 4], axis=3)
    steps = steps.astype(np.int64)
    if fmt.startswith("W5"):
        bits = np.unpackbits(reader.take(groups * 64), axis=-1, bitorder="little")
        steps = steps | bits.reshape(*lead, groups, 8, 16, 4).astype(np.int64) << 4
    if fmt == "W6K":
        planes = reader.take(groups * 128).reshape(*lead, groups, 2, 1, 16, 4).astype(np.int64)
        shifts = 2 * np.arange(4).reshape(1, 1, 1, 1, 4, 1, 1)
        steps = steps | (planes >> shifts & 3).reshape(*lead, groups, 8, 16, 4) << 4
    return steps.transpose(0, 1, 2, 3, 5, 4).reshape(*lead, groups * 32, 16)


def unpack(weight: native.PackedWeight) -> Unpacked:
    fmt, cols = weight.format, weight.cols
    groups = SPAN[fmt] // 32
    raw = weight.view().reshape(weight.panels, -1, SUPERTILE_BYTES[fmt])
    lead = raw.shape[:2]
    reader = _Reader(raw)
    quants = _by_row(_quants(reader, fmt, groups) - ZERO_POINT.get(fmt, 0), weight, cols)
    if fmt == "W6K":
        small = reader.take(256).view(np.int8).reshape(*lead, 16, 16).astype(np.float32)
        scales = reader.halfs(16).reshape(*lead, 1, 16) * small
        return Unpacked(quants, _by_row(scales, weight, cols // 16), None, 16)
    if groups == 8:
        small, small_min = (reader.take(128).reshape(*lead, 8, 16).astype(np.float32) for _ in "sm")
        scales = reader.halfs(16).reshape(*lead, 1, 16) * small
        mins = (np.float32(0) - reader.halfs(16).reshape(*lead, 1, 16)) * small_min
        return Unpacked(
            quants, _by_row(scales, weight, cols // 32), _by_row(mins, weight, cols // 32), 32
        )
    scales = reader.halfs(32).reshape(*lead, 2, 16)
    mins = reader.halfs(32).reshape(*lead, 2, 16) if fmt.endswith("A") else None
    assert reader.at == raw.shape[-1]
    return Unpacked(
        quants,
        _by_row(scales, weight, cols // 32),
        None if mins is None else _by_row(mins, weight, cols // 32),
        32,
    )


def unpack_floats(weight: native.PackedWeight) -> Floats:
    """The (rows, K) values of a BF16 or F32 weight."""
    if weight.format == "F32":
        values = weight.view().view(np.float32).reshape(weight.panels, weight.cols, 16)
        return values.transpose(0, 2, 1).reshape(-1, weight.cols)[: weight.rows]
    bits = weight.view().view(np.uint16).reshape(weight.panels, -1, 16, 2)
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    return values.transpose(0, 2, 1, 3).reshape(weight.panels * 16, -1)[
        : weight.rows, : weight.cols
    ]


def _add_product(isa: str, a: Floats, b: Floats, acc: Floats) -> Floats:
    return acc + a * b if isa == "base" else fma32(a, b, acc)


def sums(isa: str, weight: native.PackedWeight, x: Floats) -> Floats:
    """(M, rows): the kernel's accumulators. BF16 on avx512bf16 has its own rounding: not here."""
    with np.errstate(all="ignore"):
        if weight.format in SPAN:
            return _integer_sums(isa, unpack(weight), quantize_rows(x))
        values = unpack_floats(weight)
        order = list(range(weight.cols))
        if weight.format == "BF16":  # the odd column of a pair goes first; both exist
            x = from_bf16(to_bf16(x))
            order = [
                k
                for k in np.arange(weight.cols + weight.cols % 2).reshape(-1, 2)[:, ::-1].flat
                if k < weight.cols
            ]
        acc = np.zeros((len(x), weight.rows), np.float32)
        for k in order:
            acc = _add_product(isa, x[:, k, None], values[None, :, k], acc)
        return acc


def exact_row_sums(isa: str, weight: native.PackedWeight, x: Floats) -> Floats:
    """(M, rows): ABF16X2 rows where there are no bf16 dots, that is, float rows."""
    w, offset = unpack(weight), np.float32(OFFSET[weight.format])
    span = w.scale_span
    steps = (0, 4, 1, 5, 2, 6, 3, 7) if span == 32 else (0, 1, 2, 3)
    groups = x.reshape(len(x), 1, -1, span)
    raised = (w.quants.astype(np.float32) + offset).reshape(1, len(w.quants), -1, span)
    with np.errstate(all="ignore"):
        chains = [np.zeros((len(x), len(w.quants), groups.shape[2]), np.float32) for _ in "ab"]
        for j, odd, chain in itertools.product(steps, (0, 1), (0, 1)):
            k = 4 * j + odd + 2 * chain
            chains[chain] = _add_product(isa, raised[..., k], groups[..., k], chains[chain])
        d = chains[0] + chains[1]
        acc = np.zeros(d.shape[:2], np.float32)
        for g in range(d.shape[2]):
            whole, *halves = row_sums(x[:, g * span // 32 * 32 :][:, :32])
            total = whole if span == 32 else halves[g % 2]
            c = -offset * w.scales[:, g]
            c = c if w.mins is None else c + w.mins[:, g]
            acc = _add_product(isa, d[..., g], w.scales[None, :, g], acc)
            acc = _add_product(isa, c[None], total[:, None], acc)
    return acc


def _integer_sums(isa: str, w: Unpacked, x: Quantized) -> Floats:
    acc = np.zeros((len(x.quants), len(w.quants)), np.float32)
    for k in range(0, w.quants.shape[1], w.scale_span):
        span = slice(k, k + w.scale_span)
        dots = (x.quants[:, span] @ w.quants[:, span].T).astype(np.float32)
        scale = w.scales[None, :, k // w.scale_span] * x.scales[:, k // 32, None]
        acc = _add_product(isa, dots, scale, acc)
        if w.mins is not None:
            acc = _add_product(isa, w.mins[None, :, k // 32], x.am[:, k // 32, None], acc)
    return acc


def matmul(
    isa: str,
    weight: native.PackedWeight,
    x: Floats,
    out: Floats,
    *,
    bias: Floats | None = None,
    add: Floats | None = None,
    panel0: int = 0,
    panel1: int | None = None,
    tile0: int = 0,
    tile1: int | None = None,
) -> None:
    """The binding's twin: x (M, K), out and add (M, rows of the panels), bias (rows,)."""
    columns = slice(panel0 * 16, weight.rows if panel1 is None else min(panel1 * 16, weight.rows))
    result = sums(isa, weight, x)[:, columns]
    if bias is not None:
        result = result + bias[columns]
    if add is not None:
        result = result + add
    for tile in tiles_of(len(x))[tile0:tile1]:
        out[tile.start : tile.stop] = result[tile.start : tile.stop]
