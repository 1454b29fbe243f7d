"""Rotary position embeddings: the cosines and sines that a rope table makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.batch import FloatArray
from octavo.program.ops import RopeTable

_AT_ONCE = 256  # positions: a few milliseconds of wide heads


def cos_sin(table: RopeTable, positions: int, first: int = 0) -> tuple[FloatArray, FloatArray]:
    """cos and sin of the positions from `first` on, each (positions - first, rotary_dim / 2)
    float32, computed in float64."""
    angles = np.arange(first, positions, dtype=np.float64)[:, None] * np.asarray(table.frequencies)
    cos, sin = table.amplitude * np.cos(angles), table.amplitude * np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)


class CosSinTables:
    """cos and sin of several tables, computed when a position is first reached: of a long context
    that is half a second of every start, and most of it is for positions that no request has."""

    def __init__(self, tables: Sequence[RopeTable], context: int) -> None:
        self._tables = tables
        self._context = context
        self._reached = 0
        # Each (context, rotary_dim / 2), zero where it was not reached; in memory where it was.
        self.arrays = [
            (np.zeros(shape, np.float32), np.zeros(shape, np.float32))
            for shape in ((context, len(table.frequencies)) for table in tables)
        ]

    def reach(self, positions: int) -> None:
        """Have cos and sin of the first `positions`."""
        if positions <= self._reached:
            return
        end = min(-(-positions // _AT_ONCE) * _AT_ONCE, self._context)
        for table, (cos, sin) in zip(self._tables, self.arrays, strict=True):
            cos[self._reached : end], sin[self._reached : end] = cos_sin(table, end, self._reached)
        self._reached = end
