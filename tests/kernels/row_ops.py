"""The row-wise ops of the core as functions that return what they write."""

from __future__ import annotations

import numpy as np

from octavo.kernels import native
from tests.kernels.exact import F32, Floats
from tests.kernels.guard import guarded


def row_op(
    isa: str, name: str, x: Floats, *, over: bool = False, **more: Floats | float | None
) -> Floats:
    """The op's output, in the shape of `x`, written `over` a copy of it or into NaNs.

    Every array ends at a page that nobody may touch.
    """
    row = guarded(x.reshape(-1))
    out = row if over else guarded(np.full(x.size, np.nan, F32))
    arguments = {key: guarded(v) if isinstance(v, np.ndarray) else v for key, v in more.items()}
    native.row_op(isa, name, out, row, **arguments)  # type: ignore[arg-type]
    return out.reshape(x.shape)
