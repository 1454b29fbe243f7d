"""Int8 pages in numpy: rows of bytes with a scale (kv_int8.h), and products of whole numbers
(attention_dots.h)."""

from __future__ import annotations

import numpy as np

from octavo.program.rounding import rotate
from tests.kernels.exact import F32, Floats, fma
from tests.kernels.kv_floats import UNIT, Bools, Bytes, Doubles, F32Twin, Offsets


class Int8Twin(F32Twin):
    """Bytes q + 128 and a scale a row, of K rotated; its products are of whole numbers
    (attention_dots.h)."""

    most, tile = 32512, 64  # of a weight's digits; tokens that share the size of a digit
    least = F32(1e-34)  # the largest weight of a tile is 0 below it

    def k_bytes(self, slot: int, dim: int) -> Offsets:  # [D/4][16 tok][4 d]
        d = np.arange(dim)
        return np.append(d // 4 * 4 * UNIT + slot * 4 + d % 4, self._scale_bytes(slot, dim))

    def v_bytes(self, slot: int, dim: int) -> Offsets:  # [tok/4][D/16][16 d][4 tok]
        values = slot // 4 * 4 * dim + np.arange(dim) * 4 + slot % 4
        return np.append(values, self._scale_bytes(slot, dim))

    def turned(self, rows: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return rotate(rows)

    def encode(self, rows: Floats) -> Bytes:
        quants, scales = quantize_row(rows)
        return np.append((quants + 128).astype(np.uint8), scales.view(np.uint8), axis=-1)

    def decode(self, raw: Bytes) -> Floats:
        quants, scales = self._parts(raw)
        with np.errstate(all="ignore"):
            return quants * scales

    def product_error(self, p: Doubles, values: Bytes) -> Doubles:
        quants, scales = self._parts(values)
        return self.digit_error(p, quants, scales)

    def digit_error(self, p: Doubles, quants: Floats, scales: Floats) -> Doubles:
        """Half a digit, which is that of the tile's largest weight times scale, for each quant."""
        w = np.where(p > 0, p * np.where(p > 0, scales[:, 0], 0), 0)
        tiles = w.reshape(len(p), -1, self.tile)
        half = np.broadcast_to(tiles.max(axis=2, keepdims=True), tiles.shape) / self.most / 2
        return np.where(w > 0, half.reshape(p.shape), 0) @ np.abs(quants).astype(np.float64)

    def scores(self, q: Floats, keys: Bytes, fused: bool) -> Floats:
        (a, a_scale), (k, k_scale) = quantize_row(self.turned(q)), self._parts(keys)
        dots = (a.astype(np.int64) @ k.astype(np.int64).T).astype(F32)
        with np.errstate(all="ignore"):
            return dots * k_scale[:, 0] * a_scale

    def add_values(self, o: Floats, p: Floats, values: Bytes, sees: Bools, fused: bool) -> Floats:
        v, scales = self._parts(values)
        dots, step = self.weigh(p, v, scales)
        return fma(dots, step, o, fused)

    def weigh(self, p: Floats, quants: Floats, scales: Floats) -> tuple[Floats, Floats]:
        """Sums of the weights (N, S) as whole numbers times the quants of S tokens, and what one
        is worth (N, 1)."""
        with np.errstate(all="ignore"):
            w = p * scales[:, 0]
            w = np.where(w > 0, w, F32(0))
            top = w.max(axis=1, keepdims=True)
            inverse = np.where(top < self.least, F32(0), F32(self.most) / top)
            whole = np.nan_to_num(np.rint(w * inverse)).astype(np.int64)
            step = np.where(np.isinf(top), F32(np.nan), top / F32(self.most))
        return (whole @ quants.astype(np.int64)).astype(F32), step

    def _scale_bytes(self, slot: int, dim: int) -> Offsets:
        return UNIT * dim + slot * 4 + np.arange(4)

    def _parts(self, raw: Bytes) -> tuple[Floats, Floats]:
        """Quants (.., dim) and scales (.., 1)."""
        scales = np.ascontiguousarray(raw[..., -4:]).view(F32)
        return raw[..., :-4].astype(F32) - F32(128), scales


LEAST_AMAX = F32(1e-30)


def quantize_row(rows: Floats) -> tuple[Floats, Floats]:
    """Whole numbers (.., dim) within +-127, and scales (.., 1)."""
    with np.errstate(all="ignore"):
        top = np.abs(rows).max(axis=-1, keepdims=True)
        finite = np.isfinite(top)
        none = ~finite | (top < LEAST_AMAX)
        inverse = np.where(none, F32(0), F32(127) / top)
        quants = np.where(none, F32(0), np.rint(rows * inverse))
        scales = np.where(none, F32(0), top / F32(127))
    return quants, np.where(finite, scales, F32(np.inf))
