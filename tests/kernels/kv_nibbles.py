"""Int4 pages in numpy: groups of nibbles with a scale and a min (kv_int4.h), and products of whole
numbers (attention_nibbles.h)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tests.kernels.exact import F32, Floats, fma, tree
from tests.kernels.kv_bytes import Int8Twin, quantize_row
from tests.kernels.kv_floats import UNIT, Bools, Bytes, Doubles, Offsets

Halves = NDArray[np.float16]


class Int4Twin(Int8Twin):
    """Nibbles with a scale and a min for 32 values, of K rotated (attention_nibbles.h). In a row's
    bytes a group is 16 of nibbles, d and d + 16 in one, then scale and min."""

    group, line, most_f16 = 32, 64, 65504

    def k_bytes(self, slot: int, dim: int) -> Offsets:  # [D/32][4][16 tok][4 d]
        i = np.arange(16)
        return self._groups(i // 4 * self.line + slot * 4 + i % 4, slot, dim)

    def v_bytes(self, slot: int, dim: int) -> Offsets:  # [D/32][tok/4][16 d][4 tok]
        return self._groups(slot // 4 * self.line + np.arange(16) * 4 + slot % 4, slot, dim)

    def encode(self, rows: Floats) -> Bytes:
        parts = []
        for d in range(0, rows.shape[-1], self.group):
            n, scale, least = self._quantize(rows[..., d : d + self.group])
            none = np.zeros((*n.shape[:-1], self.group - n.shape[-1]))
            nibbles = np.append(n, none, axis=-1).astype(np.uint8)
            parts += [
                nibbles[..., :16] | nibbles[..., 16:] << 4,
                scale.view(np.uint8),
                least.view(np.uint8),
            ]
        return np.concatenate(parts, axis=-1)

    def decode(self, raw: Bytes) -> Floats:
        with np.errstate(all="ignore"):
            return np.concatenate([n * s + m for n, s, m in self._parts_of(raw)], axis=-1)

    def rounded(self, rows: Floats) -> Floats:
        """Of q, whose whole numbers are bytes."""
        quants, scales = quantize_row(rows)
        with np.errstate(all="ignore"):
            return quants * scales

    def sizes(self, raw: Bytes) -> Floats:
        with np.errstate(all="ignore"):
            return np.concatenate([n * s + np.abs(m) for n, s, m in self._parts_of(raw)], axis=-1)

    def product_error(self, p: Doubles, values: Bytes) -> Doubles:
        """Beside digits: p s, W and the sums of a tile are rounded, a few times u of each part."""
        digits = [self.digit_error(p, n, scale) for n, scale, _ in self._parts_of(values)]
        return np.concatenate(digits, axis=1) + 16 * 2.0**-24 * (p @ self.sizes(values))

    def scores(self, q: Floats, keys: Bytes, fused: bool) -> Floats:
        a, a_scale = quantize_row(self.turned(q))
        total = np.zeros((len(q), len(keys)), F32)
        for i, (n, scale, least) in enumerate(self._parts_of(keys)):
            of_group = a[:, i * self.group : (i + 1) * self.group].astype(np.int64)
            dots = (of_group @ n[:, : of_group.shape[1]].astype(np.int64).T).astype(F32)
            sums = of_group.sum(axis=1, keepdims=True).astype(F32)
            with np.errstate(all="ignore"):
                total = fma(scale.T, dots, fma(least.T, sums, total, fused), fused)
        with np.errstate(all="ignore"):
            return total * a_scale

    def add_values(self, o: Floats, p: Floats, values: Bytes, sees: Bools, fused: bool) -> Floats:
        after: list[Floats] = []
        for n, scale, least in self._parts_of(values):
            dots, step = self.weigh(p, n, scale)
            lanes = np.zeros((len(p), UNIT), F32)
            for t in range(0, p.shape[1], UNIT):
                weights = p[:, t : t + UNIT]
                with np.errstate(all="ignore"):
                    more = fma(weights, least[t : t + UNIT, 0], lanes, fused)
                lanes = np.where(weights > 0, more, lanes)
            begin = len(after) * self.group
            before = o[:, begin : begin + self.group] + tree(lanes)[:, None]
            width = before.shape[1]
            after.append(fma(dots[:, :width], step, before, fused))
        return np.concatenate(after, axis=1)

    def _groups(self, of_values: Offsets, slot: int, dim: int) -> Offsets:
        """Offsets in a unit of a group's values, scale and min; group after group."""
        begin = 4 * self.line
        halves = begin + np.array([0, 1, 2 * UNIT, 2 * UNIT + 1]) + slot * 2
        group = np.append(of_values, halves)
        starts = np.arange(-(-dim // self.group)) * (begin + 4 * UNIT)
        offsets: Offsets = (starts[:, None] + group).reshape(-1)
        return offsets

    def _quantize(self, rows: Floats) -> tuple[Floats, Halves, Halves]:
        """Nibbles (.., width) as floats, scale and min (.., 1)."""
        with np.errstate(all="ignore"):
            finite = np.isfinite(rows).all(axis=-1, keepdims=True)
            top, bottom = rows.max(axis=-1, keepdims=True), rows.min(axis=-1, keepdims=True)
            bottom = F32(0) - (F32(0) - bottom)
            scale, least = (
                np.clip(each, -self.most_f16, self.most_f16).astype(np.float16)
                for each in ((top - bottom) / F32(15), bottom)
            )
            wide = scale.astype(F32)
            inverse = np.where(wide > 0, F32(1) / wide, F32(0))
            n = np.rint(np.clip((rows - least.astype(F32)) * inverse, F32(0), F32(15)))
        none = np.float16(0)
        return (
            np.where(finite, n, F32(0)),
            np.where(finite, scale, np.float16(np.inf)),
            np.where(finite, least, none),
        )

    def _parts_of(self, raw: Bytes) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Of each group nibbles (.., 32 or 16), scale and min (.., 1)."""
        for begin in range(0, raw.shape[-1], 20):
            part = np.ascontiguousarray(raw[..., begin : begin + 20])
            n = np.append(part[..., :16] & 15, part[..., :16] >> 4, axis=-1).astype(F32)
            scale, least = (part[..., at : at + 2].copy().view(np.float16) for at in (16, 18))
            yield n, scale.astype(F32), least.astype(F32)
