"""RowUniforms: the numbers, uniform in [0, 1), that the rows of a step are drawn by.

Each depends on its request's seed, its answer and the position of the token drawn, and on nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.batch import IntArray, Uniforms, Want
from octavo.engine.step import HeadRow
from octavo.kernels import native


class RowUniforms:
    def __init__(self, rows: Sequence[HeadRow]) -> None:
        """Serves these rows, and in later steps those after them that ask for the same."""
        self._any = any(row.asked.want is Want.DRAW for row in rows)
        counters = [(row.branch.request.seed, row.branch.index) for row in rows]
        self._counters = np.array(counters, np.uint64).reshape(-1, 2)

    def at(self, positions: Sequence[int] | IntArray) -> Uniforms | None:
        """Return the numbers of rows at these positions; None if the head draws for none."""
        if not self._any:
            return None
        uniforms = np.empty(len(positions), np.float64)
        native.uniforms(uniforms, self._counters, np.asarray(positions, np.int32))
        return uniforms
