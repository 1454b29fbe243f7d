"""The promise of attention: a row's bits depend on nothing but the row.

Not on the rows beside it, the cut into calls and chunks, the block size, the block table, the other
heads, nor on what lies in slots that the row does not see.
"""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import native
from tests.kernels.attention_case import Kinds, PagedSequence, every_type, layout_of
from tests.kernels.exact import F32, same_bits
from tests.kernels.levels import every_isa

pytestmark = [every_isa, every_type]


@pytest.mark.parametrize(
    ("window", "softcap", "sinks", "slopes"),
    [
        (0, 0.0, False, ""), (1, 0.0, False, ""), (37, 0.0, False, ""), (300, 0.0, False, ""),
        (0, 2.0, False, ""), (300, 2.0, False, ""), (0, 0.0, True, ""), (128, 0.0, True, ""),
        (300, 2.0, True, ""), (0, 0.0, False, "plain"), (0, 0.0, False, "rounded"),
        (300, 2.0, True, "plain"),
    ],
)  # fmt: skip
def test_alone_together_split_and_by_chunks(
    isa: str, kinds: Kinds, window: int, softcap: float, sinks: bool, slopes: str
) -> None:
    seq = PagedSequence(
        isa, 530, layout_of(kinds), window=window, softcap=softcap, has_sink_logits=sinks,
        has_slopes=bool(slopes), rounded_slopes=slopes == "rounded",
    )  # fmt: skip
    together = seq.rows(440, 530)
    same_bits(seq.rows(440, 530, split_chunks=True), together)
    for begin in (440, 511, 529):  # the last two have seen two chunks whole
        same_bits(seq.rows(begin, 530, shared_chunks=True), together[begin - 440 :])
    for cut in (1, 4, 17, 63, 72):
        same_bits(np.concatenate([seq.rows(440, 440 + cut), seq.rows(440 + cut, 530)]), together)
    for row in (0, 7, 71, 72, 73, 89):
        same_bits(seq.rows(440 + row, 441 + row), together[row : row + 1])
        same_bits(seq.rows(440 + row, 441 + row, split_chunks=True), together[row : row + 1])


def test_query_heads_do_not_depend_on_their_group(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(
        isa, 300, layout_of(kinds, kv_heads=1), group=128, has_sink_logits=True, has_slopes=True
    )
    want, q, sinks, slopes = seq.rows(295, 300), seq.q, seq.sink_logits, seq.slopes
    assert sinks is not None
    assert slopes is not None
    for heads in (1, 2, 5, 7, 13, 16, 17, 48, 71):
        seq.q, seq.sink_logits = np.ascontiguousarray(q[:, :heads]), sinks[:heads].copy()
        seq.slopes = slopes[:heads].copy()
        same_bits(seq.rows(295, 300), want[:, :heads])


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_slopes_of_zero_are_as_none(isa: str, kinds: Kinds, softcap: float) -> None:
    seq = PagedSequence(isa, 530, layout_of(kinds), softcap=softcap)
    want, seq.slopes = seq.rows(500, 530), np.zeros(6, F32)
    for seq.rounded_slopes in (False, True):
        same_bits(seq.rows(500, 530), want)
        same_bits(seq.rows(500, 530, split_chunks=True), want)


def test_slopes_lose_no_bit_however_far_positions_are(isa: str, kinds: Kinds) -> None:
    """The same 512 tokens over and over: those of more than two chunks ago have weight 0."""
    seq = PagedSequence(isa, 512, layout_of(kinds), group=1)
    seq.slopes = np.full(2, 0.5, F32)
    q, found = seq.q[500:501].copy(), []
    for times in (0, 100):
        out, table = np.full((1, 2, 32), np.nan, F32), np.tile(seq.table, times + 1)
        at = seq.layer, 500 + times * 512, seq.scale
        native.attention(isa, out, q, seq.pages, seq.layout, table, *at, slopes=seq.slopes)
        found.append(out)
    same_bits(*found)


def test_block_size_and_block_table_do_not_show(isa: str, kinds: Kinds) -> None:
    first = PagedSequence(isa, 290, layout_of(kinds, block_size=16))
    want = first.rows(250, 290)
    for block_size in (16, 32, 64):
        other = PagedSequence(isa, 290, layout_of(kinds, block_size=block_size, layers=3), seed=5)
        other.q, other.k, other.v = first.q, first.k, first.v
        other.write()
        same_bits(other.rows(250, 290), want)


def test_unwritten_slots_do_not_show(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 300, layout_of(kinds))
    want = seq.rows(280, 300)
    assert np.isfinite(want).all()
    clean = seq.pages.copy()
    for garbage in (0x00, 0x7F, 0x80):
        seq.pages[clean == 0xFF] = garbage  # 0xff bytes in a row are the NaN of untouched pages
        seq.write()
        same_bits(seq.rows(280, 300), want)


@pytest.mark.parametrize(("poison", "softcap"), [(np.nan, 0.0), (np.inf, 0.0), (np.nan, 2.0)])
def test_poison_does_not_reach_the_rows_before_it(
    isa: str, kinds: Kinds, poison: float, softcap: float
) -> None:
    seq = PagedSequence(isa, 200, layout_of(kinds), group=1, softcap=softcap)
    want = seq.rows(120, 200)
    for token in (127, 128, 150, 199):
        seq.k[token], seq.v[token] = poison, poison
        seq.write()
        same_bits(seq.rows(120, 200)[: token - 120], want[: token - 120])
        assert not np.isfinite(seq.rows(token, token + 1)).any()
        seq.k[token], seq.v[token] = 0.5, 0.25
        seq.write()
        want = seq.rows(120, 200)


def test_a_poisoned_token_left_behind_by_the_window_does_not_show(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 300, layout_of(kinds), group=2, window=50)
    want = seq.rows(200, 300)
    seq.k[160], seq.v[160] = np.nan, np.nan
    seq.write()
    got = seq.rows(200, 300)
    assert np.isnan(got[:10]).all()  # positions 200..209 still see 160
    same_bits(got[10:], want[10:])


def test_many_rows_take_a_poisoned_value_of_no_weight_as_one_row_does(
    isa: str, kinds: Kinds
) -> None:
    """The top of a row may be far from a poisoned token, or from all tokens with a value."""
    seq = PagedSequence(isa, 120, layout_of(kinds), group=2)
    seq.q *= 40
    seq.v[20], seq.v[70:75] = np.nan, 1e-38
    seq.write()
    alone = np.concatenate([seq.rows(token, token + 1) for token in range(100, 120)])
    same_bits(seq.rows(100, 120), alone)
    if kinds[1] == "int8":
        assert np.isnan(alone).any()
        assert np.isfinite(alone).any()


def test_a_poisoned_query_stays_in_its_own_head(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 100, layout_of(kinds))
    want = seq.rows(90, 100)
    seq.q[94, 2] = np.nan
    got = seq.rows(90, 100)
    assert np.isnan(got[4, 2]).all()
    got[4, 2] = want[4, 2]
    same_bits(got, want)


def test_underflow_and_minus_zero_do_not_depend_on_the_company(isa: str, kinds: Kinds) -> None:
    """Products around 2^-126 flush, round to -0 or stay, as the level will: always the same way."""
    seq = PagedSequence(isa, 200, layout_of(kinds), group=1, magnitude=100.0)
    seq.v *= F32(1e-38)
    seq.v[::3] *= F32(-1e-3)
    seq.write()
    together = seq.rows(100, 200)
    same_bits(np.concatenate([seq.rows(i, i + 1) for i in range(100, 200)]), together)
    same_bits(seq.rows(100, 200, split_chunks=True), together)
