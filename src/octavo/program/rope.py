"""Rotary position embeddings: the cosines and sines that a rope table makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.batch import FloatArray, IntArray
from octavo.program.ops import RopeTable

_AT_ONCE = 256  # positions: a few milliseconds of wide heads


def cos_sin(table: RopeTable, positions: IntArray) -> tuple[FloatArray, FloatArray]:
    """cos and sin of positions, each (positions, rotary_dim / 2) float32, computed in float64."""
    if table.last is not None:
        positions = np.minimum(positions, table.last)
    angles = positions.astype(np.float64)[:, None] * np.asarray(table.frequencies)
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
        self.arrays = _empty(tables, context)

    def turn(self, positions: IntArray) -> None:
        """Have cos and sin of these positions, and of all before them."""
        last = max(positions.tolist())
        if last < self._reached:
            return
        end = min((last // _AT_ONCE + 1) * _AT_ONCE, self._context)
        reached = np.arange(self._reached, end, dtype=np.int32)
        for table, (cos, sin) in zip(self._tables, self.arrays, strict=True):
            cos[self._reached : end], sin[self._reached : end] = cos_sin(table, reached)
        self._reached = end


class CosSinRows:
    """cos and sin of several tables for the rows of one step: where positions have no end."""

    def __init__(self, tables: Sequence[RopeTable], max_rows: int) -> None:
        self._tables = tables
        self.arrays = _empty(tables, max_rows)  # each (max_rows, rotary_dim / 2)

    def turn(self, positions: IntArray) -> None:
        """Have cos and sin of a step whose rows are at these positions."""
        rows = len(positions)
        for table, (cos, sin) in zip(self._tables, self.arrays, strict=True):
            cos[:rows], sin[:rows] = cos_sin(table, positions)


def _empty(tables: Sequence[RopeTable], rows: int) -> list[tuple[FloatArray, FloatArray]]:
    shapes = ((rows, len(table.frequencies)) for table in tables)
    return [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for shape in shapes]
