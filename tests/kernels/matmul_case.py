"""What the tests of matmul share: kinds of weights and rows, random cases, a product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from octavo.kernels import native
from octavo.weights.ggml_type import GGMLType
from tests.kernels.exact import F32, Floats
from tests.kernels.gguf_blocks import TYPE_OF, random_blocks
from tests.kernels.matmul_twin import SPAN

EPS = 2.0**-24  # float32 rounds to within this share of a value
POOL = native.ThreadPool(1)
INTEGER_FORMATS = list(TYPE_OF)
Kind = tuple[str, str | None]  # format of the weight, kind of the rows
OWN_ROWS: list[Kind] = [(fmt, None) for fmt in [*INTEGER_FORMATS, "BF16", "F32"]]
TWO_TERMS: list[Kind] = [(fmt, "ABF16X2") for fmt in INTEGER_FORMATS]
Product = tuple[native.PackedWeight, Floats, str | None, np.random.Generator]
every_format = pytest.mark.parametrize("fmt", INTEGER_FORMATS)
every_kind = pytest.mark.parametrize(("fmt", "rows"), [*OWN_ROWS, *TWO_TERMS])


def normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape).astype(F32)


def make_weight(fmt: str, rows: int, cols: int, rng: np.random.Generator) -> native.PackedWeight:
    type = TYPE_OF.get(fmt, GGMLType.F32)
    blocks = random_blocks(type, rows, cols, rng)
    return native.pack_weight(POOL, blocks, type, rows, cols, fmt)


@st.composite
def products(draw: st.DrawFn, kinds: Sequence[Kind]) -> Product:
    """A random weight, rows for it and their kind, and what more is drawn from."""
    fmt, kind = draw(st.sampled_from(kinds))
    wide = [256, 512, 1536] if SPAN.get(fmt) == 256 else [32, 64, 96, 576, 1536]
    cols = draw(st.sampled_from(wide) if fmt in SPAN else st.integers(1, 100))
    rows, tokens = draw(st.integers(1, 130)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return make_weight(fmt, rows, cols, rng), normal(rng, tokens, cols), kind, rng


def multiply(isa: str, weight: native.PackedWeight, x: Floats, **options: Any) -> Floats:
    out = np.full((len(x), weight.rows), np.nan, F32)
    native.matmul(isa, weight, x, out, **options)
    return out
