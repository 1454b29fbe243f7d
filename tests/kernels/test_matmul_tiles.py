"""Weights on tiles: of integers, which take the rows from 32 on, and of bf16, which take any.

That tiles are cut, finished and bounded as all kernels are is in test_matmul.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import native
from tests.kernels import matmul_case as case
from tests.kernels import matmul_twin as twin
from tests.kernels import quantize_twin
from tests.kernels.exact import F32, check_bits
from tests.kernels.levels import every_isa, every_tiled_isa
from tests.kernels.matmul_twin import SPAN


def columns_of(fmt: str) -> tuple[int, ...]:
    """One group or supertile; an odd number of groups in two runs; two whole runs and more."""
    return (256, 1024, 1792) if SPAN[fmt] == 256 else (32, 32 * 27, 1568)


@case.every_format
@every_isa
def test_any_number_of_rows_has_the_bits_of_the_twin(isa: str, fmt: str) -> None:
    """So no request can see which rows went through tiles, nor (but for base) on which machine."""
    rng = np.random.default_rng(11)
    for cols in columns_of(fmt):
        weight, x = case.make_weight(fmt, 73, cols, rng), case.normal(rng, 69, cols)
        want = twin.matmul(isa, weight, x)
        # Blocks of 16 from 32 rows on, and a last one of any number.
        for rows in (*range(1, 32, 2), *range(32, 50), 69):
            check_bits(case.multiply(isa, weight, x[:rows]), want[:rows])


@every_tiled_isa
def test_rows_of_a_block_lie_side_by_side_from_32_on(isa: str) -> None:
    """The first two groups of row 1: 32 bytes behind row 0 in a block, a step behind it below."""
    x = np.zeros((33, 64), F32)
    x[0], x[1, :32], x[1, 32:] = 1.0, np.arange(96, 128), np.arange(127, 95, -1)
    rows = np.arange(96, 128)
    block = np.frombuffer(native.quantize(isa, x, "A32"), np.int8)
    assert block[:32].tolist() == [127] * 32
    assert block[32:64].tolist() == rows.tolist()
    assert block[16 * 48 :][32:64].tolist() == rows[::-1].tolist()
    few = np.frombuffer(native.quantize(isa, x[:31], "A32"), np.int8)
    tile = len(quantize_twin.tiles_of(31)[0])
    assert few[4:8].tolist() == rows[:4].tolist()
    assert few[4 * tile + 4 : 4 * tile + 8].tolist() == rows[4:8].tolist()


@every_tiled_isa
def test_a_cut_inside_a_block_writes_its_own_rows(isa: str) -> None:
    """Tiles of six rows end anywhere in a block of 16; its other rows are computed and dropped."""
    rng = np.random.default_rng(12)
    weight, x = case.make_weight("W4A", 40, 96, rng), case.normal(rng, 41, 96)
    whole, tiles = case.multiply(isa, weight, x), quantize_twin.tiles_of(41)
    for first in range(len(tiles)):
        for end in range(first + 1, len(tiles) + 1):
            got, add = np.full((41, 40), -7, F32), np.full((41, 40), 0.5, F32)
            native.matmul(isa, weight, x, got, add=add, tile0=first, tile1=end)
            inside = slice(tiles[first].start, tiles[end - 1].stop)
            assert np.array_equal(got[inside], whole[inside] + F32(0.5))
            got[inside] = -7
            assert np.array_equal(got, np.full_like(got, -7))


@every_tiled_isa
@pytest.mark.parametrize("cols", [1, 31, 32, 45, 96, 257])
def test_bf16_weights_have_one_order_of_sums_for_any_number_of_rows(isa: str, cols: int) -> None:
    """Whole steps of 32 columns and what is left, in blocks of 16 rows, by twos and alone."""
    rng = np.random.default_rng(13)
    weight, x = case.make_weight("BF16", 73, cols, rng), case.normal(rng, 69, cols)
    want = twin.matmul(isa, weight, x)
    for rows in (*range(1, 18), *range(31, 36), 47, 48, 49, 69):
        check_bits(case.multiply(isa, weight, x[:rows]), want[:rows])
