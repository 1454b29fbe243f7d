"""The words of tiles/words.h, each on every level with tiles, against numpy.

The plain words run wherever AVX-512 does; the instructions where the machine has them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from tests.kernels import tile_twin as twin
from tests.kernels.exact import F32, check_bits, to_bf16
from tests.kernels.guard import guarded
from tests.kernels.levels import ISAS, TILED, every_tiled_isa
from tests.kernels.tile_twin import Words

side = st.integers(1, 16)
seeds = st.integers(0, 2**32 - 1)
Dot = Callable[[Words, Words, Words], Words]
DOTS = {"dot_s8": twin.dot_s8, "dot_s8u8": twin.dot_s8u8, "dot_bf16": twin.dot_bf16}
BYTES = [(word, dot) for word, dot in DOTS.items() if word != "dot_bf16"]


def words(rng: np.random.Generator, *shape: int) -> Words:
    """Bit patterns drawn evenly: as bf16 or float, every exponent and NaNs among them."""
    return rng.integers(0, 2**32, shape, dtype=np.uint32)


def near_the_least(rng: np.random.Generator, *shape: int) -> Words:
    """Pairs of bf16 whose products lie around the least float that is no denormal."""
    values = rng.standard_normal((*shape, 2)) * 2.0 ** rng.integers(-66, -60, (*shape, 2))
    return to_bf16(values.astype(F32)).view(np.uint32).reshape(shape)


def test_plain_tiles_are_there_with_avx512_and_offered_by_name_only() -> None:
    assert ("amx_plain" in native.plain_isas()) == ("avx512" in available_isas())
    assert "amx_plain" not in available_isas()
    assert native.default_isa() != "amx_plain"


@every_tiled_isa
@pytest.mark.parametrize(("word", "dot"), BYTES)
@settings(max_examples=60, deadline=None)
@given(m=side, n=side, k=side, seed=seeds, extreme=st.booleans())
def test_dots_of_bytes_are_exact_and_wrap(
    isa: str, word: str, dot: Dot, m: int, n: int, k: int, seed: int, extreme: bool
) -> None:
    rng = np.random.default_rng(seed)
    c, a, b = words(rng, m, n), words(rng, m, k), words(rng, k, n)
    if extreme:
        a[:], b[:] = 0x80808080, rng.choice([0x7F7F7F7F, 0x80808080, 0xFFFFFFFF])
    want = dot(c, a, b)
    native.tile_word(isa, word, c, a, b)
    assert np.array_equal(c, want)


@every_tiled_isa
@settings(max_examples=60, deadline=None)
@given(m=side, n=side, k=side, seed=seeds, small=st.booleans())
def test_dot_bf16_has_two_chains_and_no_denormals(
    isa: str, m: int, n: int, k: int, seed: int, small: bool
) -> None:
    rng = np.random.default_rng(seed)
    if small:
        a, b = near_the_least(rng, m, k), near_the_least(rng, k, n)
        c = (rng.standard_normal((m, n)) * 2.0**-125).astype(F32).view(np.uint32)
    else:
        c, a, b = words(rng, m, n), words(rng, m, k), words(rng, k, n)
    want = twin.dot_bf16(c, a, b)
    native.tile_word(isa, "dot_bf16", c, a, b)
    check_bits(c.view(F32), want.view(F32))


@every_tiled_isa
def test_dot_bf16_by_hand(isa: str) -> None:
    """Even k before odd k: 1 + 2^-24 - 1 is 0 in order, 2^-24 in two chains. The rest of the thread
    keeps its denormals."""
    a = np.array([[1.0, 2.0**-24, -1.0, 0.0]], F32)
    words = (a.view(np.uint32)[:, 1::2] & np.uint32(0xFFFF0000)) | (a.view(np.uint32)[:, ::2] >> 16)
    ones = np.full((2, 1), 0x3F803F80, np.uint32)
    c = np.zeros((1, 1), np.uint32)
    native.tile_word(isa, "dot_bf16", c, np.ascontiguousarray(words), ones)
    assert c.view(F32)[0, 0] == F32(2.0**-24)
    c[:] = 1  # the least denormal: read as 0
    native.tile_word(isa, "dot_bf16", c, np.zeros((1, 2), np.uint32), ones)
    assert c[0, 0] == 0
    assert np.full(1, 2.0**-126, F32) * F32(0.5) == F32(2.0**-127)


@every_tiled_isa
@pytest.mark.parametrize("word", [*DOTS, "zero"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 16), (5, 16, 8), (16, 3, 4)])
def test_rows_lie_apart_and_nothing_else_is_touched(
    isa: str, word: str, shape: tuple[int, int, int]
) -> None:
    """Rows of wider arrays, each of which ends at a page that may not be touched."""
    m, n, k = shape
    rng = np.random.default_rng(5)
    wide = [guarded(words(rng, rows, 3 + columns)) for rows, columns in ((m, n), (m, k), (k, n))]
    c, a, b = (each[:, 3:] for each in wide)
    before = wide[0].copy()
    compact = [np.ascontiguousarray(each) for each in (c, a, b)]
    expected = np.zeros_like(compact[0]) if word == "zero" else DOTS[word](*compact)
    native.tile_word(isa, word, c, a, b)
    check_bits(c.copy().view(F32), expected.view(F32))
    assert np.array_equal(wide[0][:, :3], before[:, :3])


def test_what_is_no_product_of_tiles_is_refused() -> None:
    one, tall = np.zeros((1, 1), np.uint32), np.zeros((17, 1), np.uint32)
    for isa in TILED:
        with pytest.raises(
            ValueError, match="word: expected dot_s8, dot_s8u8, dot_bf16 or zero, got dot_u8"
        ):
            native.tile_word(isa, "dot_u8", one, one, one)
        with pytest.raises(ValueError, match=r"c: expected C \(M, N\).*1\.\.16, got 17 x 1"):
            native.tile_word(isa, "dot_s8", tall, tall, one)
        with pytest.raises(ValueError, match="b: expected C"):
            native.tile_word(isa, "dot_s8", one, one, np.zeros((2, 1), np.uint32))
    for isa in set(ISAS) - set(TILED):
        with pytest.raises(ValueError, match=f"isa: expected a level with tiles, got {isa}"):
            native.tile_word(isa, "zero", one, one, one)
