"""The KV formats of floats in numpy, and what every format's twin has: what kv_traits.h says.

A unit is 16 tokens of one kv head. A format says which bytes of a unit are a token's (scales too),
what they hold, and its two products, which take K and V as these bytes; those of `F32Twin` step
through the tokens in the kernels' order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tests.kernels.exact import F32, Floats, fma, from_bf16, to_bf16
from tests.kernels.tile_twin import add_dots

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]
UNIT = 16


class F32Twin:
    """Float32, and what all formats share whose values enter chains of float steps."""

    size = 4  # bytes of a value
    step = 1  # values of one step

    def k_bytes(self, slot: int, dim: int) -> Offsets:  # [D][16 tok]
        """Where in a unit the bytes of slot's K are, in the order of `encode`."""
        return self._each_byte((np.arange(dim) * UNIT + slot) * 4)

    def v_bytes(self, slot: int, dim: int) -> Offsets:  # [tok][D]
        return self._each_byte((slot * dim + np.arange(dim)) * 4)

    def turned(self, rows: Floats) -> Floats:
        """The rows of K, or of q, that `encode` and `rounded` take: another basis where the format
        has one for K."""
        return rows

    def encode(self, rows: Floats) -> Bytes:
        """The bytes of rows (..., dim)."""
        return np.ascontiguousarray(rows, F32).view(np.uint8)

    def decode(self, raw: Bytes) -> Floats:
        """The rows that such bytes hold."""
        return raw.view(F32)

    def rounded(self, rows: Floats) -> Floats:
        """What a product takes in place of rows of q or of weights."""
        return self.decode(self.encode(rows))

    def sizes(self, raw: Bytes) -> Floats:
        """How large what a value is the sum of is: (.., dim)."""
        return np.abs(self.decode(raw))

    def product_error(self, p: Doubles, values: Bytes) -> Doubles:
        """Bound how far V's product is off for what it makes of weights p (N, S): (N, dim)."""
        return np.zeros((len(p), 1))

    def is_single(self, isa: str) -> bool:
        """Tell whether that level computes in plain float32, so that the twin has its bits."""
        return True

    def scores(self, q: Floats, keys: Bytes, fused: bool) -> Floats:
        """q (N, dim) times the rows of S tokens: (N, S)."""
        return self.dots(self.rounded(q), self.decode(keys), fused)

    def add_values(self, o: Floats, p: Floats, values: Bytes, sees: Bools, fused: bool) -> Floats:
        """o (N, dim) plus weights (N, S) times the rows of S tokens, those that a row sees."""
        return self.weighed(o, self.rounded(p), self.decode(values), sees, fused)

    def dots(self, q: Floats, k: Floats, fused: bool) -> Floats:
        """q (N, dim) times k (S, dim), step by step: (N, S)."""
        acc = np.zeros((len(q), len(k)), F32)
        for d in self._in_steps(q.shape[1]):
            acc = fma(q[:, d : d + 1], k[:, d], acc, fused)
        return acc

    def weighed(self, o: Floats, p: Floats, v: Floats, sees: Bools, fused: bool) -> Floats:
        """o (N, dim) plus p (N, S) times v (S, dim), step by step.

        A step that row n does not see is skipped; an unseen value of a seen step counts as 0.
        """
        weights = np.where(sees, p, F32(0))
        enters = sees.reshape(len(p), -1, self.step).any(axis=2).repeat(self.step, axis=1)
        o = o.copy()
        for t in self._in_steps(len(v)):
            rows = np.flatnonzero(enters[:, t])
            if not len(rows):
                continue
            value = np.where(sees[rows, t, None], v[t], F32(0))
            o[rows] = fma(weights[rows, t, None], value, o[rows], fused)
        return o

    def _in_steps(self, count: int) -> Iterable[int]:
        """In a step of two values the odd one comes first."""
        return np.arange(count).reshape(-1, self.step)[:, ::-1].reshape(-1).tolist()

    def _each_byte(self, first: Offsets) -> Offsets:
        return (first[:, None] + np.arange(self.size)).reshape(-1)


class Bf16Twin(F32Twin):
    size, step = 2, 2

    def product_error(self, p: Doubles, values: Bytes) -> Doubles:
        return p * 2.0**-8 @ self.sizes(values).astype(np.float64)

    def k_bytes(self, slot: int, dim: int) -> Offsets:  # [D/2][16 tok][2 d]
        d = np.arange(dim)
        return self._each_byte((d // 2 * UNIT + slot) * 4 + d % 2 * 2)

    def v_bytes(self, slot: int, dim: int) -> Offsets:  # [tok/2][D/16][16 d][2 tok]
        return self._each_byte((slot // 2 * dim + np.arange(dim)) * 4 + slot % 2 * 2)

    def encode(self, rows: Floats) -> Bytes:
        return to_bf16(rows).view(np.uint8)

    def decode(self, raw: Bytes) -> Floats:
        return from_bf16(raw.view(np.uint16))

    def is_single(self, isa: str) -> bool:
        return isa != "avx512bf16"


class TiledBf16Twin(Bf16Twin):
    """Bf16 whose products go through tiles, for K and V both: so many d or tokens at a time."""

    run = 32

    def is_single(self, isa: str) -> bool:
        return True

    def scores(self, q: Floats, keys: Bytes, fused: bool) -> Floats:
        acc, rounded, k = np.zeros((len(q), len(keys)), F32), self.rounded(q), self.decode(keys)
        for d in range(0, q.shape[1], self.run):
            part = slice(d, d + self.run)
            acc = add_dots(acc, rounded[:, None, part], k[None, :, part])
        return acc

    def add_values(self, o: Floats, p: Floats, values: Bytes, sees: Bools, fused: bool) -> Floats:
        """A run that a row does not see at all is skipped; what it does not see of one is 0 * 0."""
        weights, v = self.rounded(p), self.decode(values)
        for t in range(0, len(values), self.run):
            part = slice(t, t + self.run)
            seen = sees[:, None, part]
            after = add_dots(
                o, np.where(seen, weights[:, None, part], F32(0)),
                np.where(seen, v[part].T[None], F32(0)),
            )  # fmt: skip
            o = np.where(seen.any(axis=2), after, o)
        return o
