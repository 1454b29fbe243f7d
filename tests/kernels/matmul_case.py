"""What the tests of matmul share: ISA levels and formats, a random weight, a product."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import available_isas, native
from octavo.weights.ggml_type import GGMLType
from tests.kernels.gguf_blocks import TYPE_OF, random_blocks

EPS = 2.0**-24  # float32 rounds to within this share of a value
INTEGER_FORMATS = list(TYPE_OF)
ISAS = available_isas()
every_isa = pytest.mark.parametrize("isa", ISAS)


def make_weight(pool, fmt, rows, cols, rng):
    type = TYPE_OF.get(fmt, GGMLType.F32)
    blocks = random_blocks(type, rows, cols, rng)
    return native.pack_weight(pool, blocks, type, rows, cols, fmt)


def multiply(isa, weight, x, **kwargs):
    out = np.full((len(x), weight.rows), np.nan, np.float32)
    native.matmul(isa, weight, x, out, **kwargs)
    return out
