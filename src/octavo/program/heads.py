"""Computes HeadLinear and Join in numpy, for the reference interpreter.

Heads lie side by side in a row. Knows nothing of batches or packing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from octavo.batch import FloatArray
from octavo.program.ops import HeadLinear, HeadOp


def of_heads(
    op: HeadOp,
    values: Sequence[FloatArray],
    weights: Mapping[str, FloatArray],
    rounded: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Return what the op makes of its inputs, (rows, out width). `rounded` is what becomes of rows
    before a matrix meets them."""
    heads = [each.reshape(len(each), op.heads, -1) for each in values]
    if isinstance(op, HeadLinear):
        matrices = weights[op.weight.name].reshape(op.heads, -1, heads[0].shape[2])
        x = rounded(heads[0]).swapaxes(0, 1)
        made = (x @ matrices.swapaxes(1, 2)).swapaxes(0, 1)
    else:
        made = np.concatenate(heads, axis=2)
    rows: FloatArray = made.reshape(len(values[0]), op.out.width)
    return rows
