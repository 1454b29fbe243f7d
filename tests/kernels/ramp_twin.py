"""What slopes make of the positions of rows and keys, in the kernels' order of operations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from octavo.program.rounding import round_bf16
from tests.kernels.exact import F32, Floats

CHUNK = 256
Positions = NDArray[np.signedinteger]


class Ramp(NamedTuple):
    """Rows with slopes, and where they are."""

    slopes: Floats  # (N,)
    positions: Positions  # (N,)
    rounded: bool
    scale: float
    unit: F32  # of a bias, where it joins a score before c

    @classmethod
    def of(
        cls, slopes: Floats | None, positions: Positions, rounded: bool, scale: float,
        softcap: float = 0.0,
    ) -> Ramp | None:  # fmt: skip
        """None where rows have no slopes."""
        if slopes is None:
            return None
        unit = F32(1) / F32(softcap or scale)
        if rounded:
            unit = F32(scale) / F32(softcap) if softcap else F32(1)
        return cls(slopes, positions, rounded, scale, unit)

    def of_keys(self, begin: int, keys: Positions) -> Floats:
        """What scores of keys get in the chunk that begins there, (N, keys)."""
        last = np.minimum(self.positions, begin + CHUNK - 1)
        return self._between(last[:, None], keys[None, :]) * self.unit

    def of_chunk(self, begin: int, c: F32) -> Floats:
        """What the chunk's maxima get where it is merged, (N,)."""
        last = np.minimum(self.positions, begin + CHUNK - 1)
        between = self._between(self.positions[:, None], last[:, None])
        return between[:, 0] * (self.unit * c)

    def exact(self, keys: Positions) -> NDArray[np.float64]:
        """What scaled scores of keys get, by the book: (N, keys)."""
        slopes, rows = self.slopes[:, None], self.positions[:, None]
        if not self.rounded:
            return slopes.astype(np.float64) * (keys[None, :] - rows)
        return self.scale * (self._rounded(keys[None, :]).astype(np.float64) - self._rounded(rows))

    def _between(self, start: Positions, end: Positions) -> Floats:
        if not self.rounded:
            return self.slopes[:, None] * (end - start).astype(F32)
        return self._rounded(end) - self._rounded(start)

    def _rounded(self, positions: Positions) -> Floats:
        return round_bf16(self.slopes[:, None] * round_bf16(positions.astype(F32)))
