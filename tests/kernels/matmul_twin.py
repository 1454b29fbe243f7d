"""The matmul kernels in numpy: the same numbers, bit for bit, from the same packed bytes.

Reads the layouts of csrc/formats.h on its own, so that a mistake in a packer or a kernel shows.
Slow and obvious. `fused` says how the level adds a product: rounded once, or (base) twice.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels.exact import F32, Floats, fma, from_bf16, to_bf16
from tests.kernels.guard import Scalar
from tests.kernels.quantize_twin import Ints, Quantized, quantize_rows, row_sums
from tests.kernels.tile_twin import add_dots

SPAN = {
    "W8": 64, "W4S": 64, "W4A": 64, "W5S": 64, "W5A": 64, "W4K": 256, "W5K": 256, "W6K": 256,
    "W2K": 256, "W3K": 256, "W4T": 64, "W4TK": 256, "W4F": 64,
}  # fmt: skip
SUPERTILE_BYTES = {
    "W8": 1088, "W4S": 576, "W4A": 640, "W5S": 704, "W5A": 768, "W4K": 2368, "W5K": 2880,
    "W6K": 3392, "W2K": 1344, "W3K": 1856, "W4T": 576, "W4TK": 2240, "W4F": 576,
}  # fmt: skip
ZERO_POINT = {"W8": 128, "W4S": 8, "W5S": 16, "W6K": 32, "W3K": 4}
OF_HALVES = ("W6K", "W2K", "W3K")  # a scale for every 16 values
TABLE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
FLOATS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])  # halves
# What ABF16X2 kernels add to quants: the zero point, and 2^bits (eight bits fill a bf16 without).
OFFSET = {
    "W8": 128, "W4S": 24, "W4A": 16, "W5S": 48, "W5A": 32, "W4K": 16, "W5K": 32, "W6K": 96,
    "W2K": 4, "W3K": 12, "W4T": 128, "W4TK": 128, "W4F": 48,
}  # fmt: skip


@dataclass(frozen=True)
class Unpacked:
    """A packed integer weight: value = scale * quant (+ min), zero point already taken off."""

    quants: Ints  # (rows, K)
    scales: Floats  # (rows, K / scale_span)
    mins: Floats | None  # as scales
    scale_span: int  # 32 or 16

    def dequantize(self, dtype: type[np.floating] = np.float32) -> NDArray[Any]:
        """(rows, K): products are exact in float32, the sum with the min rounds once."""
        values = self.quants.astype(dtype) * np.repeat(self.scales, self.scale_span, axis=1)
        return (
            values if self.mins is None else values + np.repeat(self.mins, self.scale_span, axis=1)
        )


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


def _by_row(values: NDArray[Scalar], weight: native.PackedWeight, columns: int) -> NDArray[Scalar]:
    """(panels, supertiles, x, 16) to (rows, columns)."""
    panels, supertiles, inner, lanes = values.shape
    rows = values.transpose(0, 3, 1, 2).reshape(panels * lanes, supertiles * inner)
    return rows[: weight.rows, :columns]


def _quants(reader: _Reader, fmt: str, groups: int) -> Ints:
    """(panels, supertiles, groups * 32, 16) unsigned."""
    lead = reader.raw.shape[:2]
    if fmt == "W8":
        steps = reader.take(groups * 512).reshape(*lead, groups, 8, 16, 4)
    elif fmt in ("W2K", "W3K"):
        steps = _two_bits(reader, groups)
    else:
        both = reader.take(groups * 256).reshape(*lead, groups, 4, 16, 4)
        steps = np.concatenate([both & 15, both >> 4], axis=3)
    if fmt.startswith("W5"):
        bits = np.unpackbits(reader.take(groups * 64), axis=-1, bitorder="little")
        steps = steps | bits.reshape(*lead, groups, 8, 16, 4) << np.uint8(4)
    if fmt == "W6K":
        steps = steps | _two_bits(reader, groups) << np.uint8(4)
    if fmt == "W3K":
        plane = reader.take(groups * 64).reshape(*lead, groups, 1, 16, 4)
        bits = plane >> np.arange(8, dtype=np.uint8).reshape(8, 1, 1) & np.uint8(1)
        steps = steps | bits << np.uint8(2)
    return steps.transpose(0, 1, 2, 3, 5, 4).reshape(*lead, groups * 32, 16).astype(np.int64)


def _two_bits(reader: _Reader, groups: int) -> NDArray[np.uint8]:
    """(panels, supertiles, groups, 8, 16, 4)."""
    lead = reader.raw.shape[:2]
    planes = reader.take(groups * 128).reshape(*lead, groups, 2, 1, 16, 4)
    shifts = 2 * np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    return (planes >> shifts & np.uint8(3)).reshape(*lead, groups, 8, 16, 4)


def unpack(weight: native.PackedWeight) -> Unpacked:
    fmt, cols = weight.format, weight.cols
    groups = SPAN[fmt] // 32
    raw = weight.view().reshape(weight.panels, -1, SUPERTILE_BYTES[fmt])
    lead = raw.shape[:2]
    reader = _Reader(raw)
    quants = _by_row(_quants(reader, fmt, groups) - ZERO_POINT.get(fmt, 0), weight, cols)
    if fmt.startswith("W4T"):
        quants = TABLE[quants]
    if fmt == "W4F":
        quants = FLOATS[quants]
    mins = None
    if fmt == "W2K":
        both = reader.take(256).reshape(*lead, 16, 16)
        scales = reader.halfs(16).reshape(*lead, 1, 16) * (both & 15).astype(np.float32)
        mins = -(reader.halfs(16).reshape(*lead, 1, 16) * (both >> 4).astype(np.float32))
    elif fmt == "W4TK":
        small = reader.take(128).view(np.int8).reshape(*lead, 8, 16).astype(np.float32)
        scales = reader.halfs(16).reshape(*lead, 1, 16) * small
    elif fmt in OF_HALVES:
        small = reader.take(256).view(np.int8).reshape(*lead, 16, 16).astype(np.float32)
        scales = reader.halfs(16).reshape(*lead, 1, 16) * small
    elif groups == 8:
        small, small_min = (reader.take(128).reshape(*lead, 8, 16).astype(np.float32) for _ in "sm")
        scales = reader.halfs(16).reshape(*lead, 1, 16) * small
        mins = (np.float32(0) - reader.halfs(16).reshape(*lead, 1, 16)) * small_min
    else:
        scales = reader.halfs(32).reshape(*lead, 2, 16)
        mins = reader.halfs(32).reshape(*lead, 2, 16) if fmt.endswith("A") else None
    padding = 32 if fmt in ("W6K", "W3K", "W4TK") else 0
    assert reader.at == raw.shape[-1] - padding
    span = 16 if fmt in OF_HALVES else 32
    by_row = None if mins is None else _by_row(mins, weight, cols // span)
    return Unpacked(quants, _by_row(scales, weight, cols // span), by_row, span)


def unpack_floats(weight: native.PackedWeight) -> Floats:
    """The (rows, K) values of a BF16 or F32 weight."""
    if weight.format == "F32":
        values = weight.view().view(np.float32).reshape(weight.panels, weight.cols, 16)
        return values.transpose(0, 2, 1).reshape(-1, weight.cols)[: weight.rows]
    bits = weight.view().view(np.uint16).reshape(weight.panels, -1, 16, 2)
    rows = from_bf16(bits).transpose(0, 2, 1, 3).reshape(weight.panels * 16, -1)
    return rows[: weight.rows, : weight.cols]


def matmul(
    isa: str,
    weight: native.PackedWeight,
    x: Floats,
    *,
    bias: Floats | None = None,
    scale: float = 1.0,
    add: Floats | None = None,
    rows: str | None = None,
) -> Floats:
    """(M, rows). Where there are bf16 dots, BF16 weights and ABF16X2 rows round as those do: not
    here."""
    of_kind = float_row_sums if rows == "ABF16X2" else sums
    if weight.format == "BF16" and isa.startswith("amx"):
        of_kind = tile_sums
    with np.errstate(all="ignore"):
        result = of_kind(isa != "base", weight, x)
        result = result if bias is None else result + bias
        result = result if scale == 1 else result * F32(scale)
        return result if add is None else result + add


def sums(fused: bool, weight: native.PackedWeight, x: Floats) -> Floats:
    if weight.format in SPAN:
        return _integer_sums(fused, unpack(weight), quantize_rows(x))
    values = unpack_floats(weight)
    order = np.arange(weight.cols + weight.cols % 2).reshape(-1, 2)
    if weight.format == "BF16":  # the odd column of a pair goes first; both exist
        x, order = from_bf16(to_bf16(x)), order[:, ::-1]
    acc = np.zeros((len(x), weight.rows), np.float32)
    for k in order[order < weight.cols]:
        acc = fma(x[:, k, None], values[None, :, k], acc, fused)
    return acc


def tile_sums(fused: bool, weight: native.PackedWeight, x: Floats) -> Floats:
    """bf16 in tiles: dots of 32 columns one after the other, whose bits no level changes."""
    odd = weight.cols % 2  # a column of zeros makes the last pair whole
    values, rounded = (
        np.pad(v, ((0, 0), (0, odd))) for v in (unpack_floats(weight), from_bf16(to_bf16(x)))
    )
    acc = np.zeros((len(x), weight.rows), np.float32)
    for k in range(0, weight.cols, 32):
        part = slice(k, k + 32)
        acc = add_dots(acc, rounded[:, None, part], values[None, :, part])
    return acc


def float_row_sums(fused: bool, weight: native.PackedWeight, x: Floats) -> Floats:
    """ABF16X2 rows where there are no bf16 dots, that is, float rows."""
    w, offset = unpack(weight), np.float32(OFFSET[weight.format])
    span = w.scale_span
    steps = (0, 4, 1, 5, 2, 6, 3, 7) if span == 32 else (0, 1, 2, 3)
    groups = x.reshape(len(x), 1, -1, span)
    raised = (w.quants.astype(np.float32) + offset).reshape(1, len(w.quants), -1, span)
    chains = [np.zeros((len(x), len(w.quants), groups.shape[2]), np.float32) for _ in "ab"]
    for j, odd, chain in itertools.product(steps, (0, 1), (0, 1)):
        k = 4 * j + odd + 2 * chain
        chains[chain] = fma(raised[..., k], groups[..., k], chains[chain], fused)
    d = chains[0] + chains[1]
    acc = np.zeros(d.shape[:2], np.float32)
    for g in range(d.shape[2]):
        whole, *halves = row_sums(x[:, g * span // 32 * 32 :][:, :32])
        total = whole if span == 32 else halves[g % 2]
        c = -offset * w.scales[:, g]
        c = c if w.mins is None else c + w.mins[:, g]
        acc = fma(d[..., g], w.scales[None, :, g], acc, fused)
        acc = fma(c[None], total[:, None], acc, fused)
    return acc


def _integer_sums(fused: bool, w: Unpacked, x: Quantized) -> Floats:
    acc = np.zeros((len(x.quants), len(w.quants)), np.float32)
    for k in range(0, w.quants.shape[1], w.scale_span):
        span = slice(k, k + w.scale_span)
        dots = (x.quants[:, span] @ w.quants[:, span].T).astype(np.float32)
        scale = w.scales[None, :, k // w.scale_span] * x.scales[:, k // 32, None]
        acc = fma(dots, scale, acc, fused)
        if w.mins is not None:
            am = x.scales[:, k // 32] * x.quants[:, span].sum(-1).astype(np.float32)
            acc = fma(w.mins[None, :, k // w.scale_span], am[:, None], acc, fused)
    return acc
