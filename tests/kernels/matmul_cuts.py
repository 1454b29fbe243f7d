"""A product computed in parts: any rows, panels and tiles give the bits of the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import native
from tests.kernels import quantize_twin


def check_cuts(
    data: st.DataObject,
    isa: str,
    weight: native.PackedWeight,
    x: NDArray[np.float32],
    *,
    rows: str | None = None,
) -> None:
    """Draws a run of tokens, of panels and of tiles of `x` (tokens, cols); each must equal its part
    of the whole, and a cut must leave what lies outside of it untouched."""

    def multiply(part: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.full((len(part), weight.rows), np.nan, np.float32)
        native.matmul(isa, weight, part, out, rows=rows)
        return out

    tokens, together = len(x), multiply(x)
    first = data.draw(st.integers(0, tokens - 1), "first row")
    last = data.draw(st.integers(first + 1, tokens), "end row")
    assert np.array_equal(multiply(x[first:last]), together[first:last])
    assert np.array_equal(multiply(x[first : first + 1]), together[first : first + 1])
    panel0 = data.draw(st.integers(0, weight.panels - 1), "first panel")
    panel1 = data.draw(st.integers(panel0 + 1, weight.panels), "end panel")
    tiles = quantize_twin.tiles_of(tokens)
    tile0 = data.draw(st.integers(0, len(tiles) - 1), "first tile")
    tile1 = data.draw(st.integers(tile0 + 1, len(tiles)), "end tile")
    columns = slice(16 * panel0, min(16 * panel1, weight.rows))
    want = np.full((tokens, columns.stop - columns.start), -7, np.float32)
    touched = slice(tiles[tile0].start, tiles[tile1 - 1].stop)
    want[touched] = together[touched, columns]
    got = np.full_like(want, -7)
    cut = {"panel0": panel0, "panel1": panel1, "tile0": tile0, "tile1": tile1}
    native.matmul(isa, weight, x, got, rows=rows, **cut)
    assert np.array_equal(got, want)
