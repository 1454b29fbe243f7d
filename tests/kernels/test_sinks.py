"""Sinks: the first block of a sequence in bf16 pages of its own, the rest in int4 ones."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import native
from tests.kernels.attention_case import Kinds, PagedSequence, layout_of
from tests.kernels.exact import same_bits
from tests.kernels.levels import every_isa

KINDS = [("int4", "int4"), ("int8", "int4"), ("int4", "bf16"), ("bf16", "int4")]
every_kind = pytest.mark.parametrize("kinds", KINDS, ids="-".join)
every_block = pytest.mark.parametrize("block_size", [16, 32, 64])


def sequence(isa: str, tokens: int, kinds: Kinds, block_size: int, **more: float) -> PagedSequence:
    layout = layout_of(kinds, block_size=block_size)
    return PagedSequence(isa, tokens, layout, has_sinks=True, **more)  # type: ignore[arg-type]


@every_isa
@every_kind
@every_block
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_rows_equal_the_twin(isa: str, kinds: Kinds, block_size: int, softcap: float) -> None:
    seq = sequence(isa, 300, kinds, block_size, softcap=softcap)
    for begin, end in ((0, 1), (0, block_size), (0, 70), (block_size - 1, block_size + 1),
                       (block_size, block_size + 9), (290, 300)):  # fmt: skip
        seq.check(begin, end)


@every_isa
@pytest.mark.parametrize(("k_dim", "v_dim"), [(16, 48), (80, 16), (96, 64), (256, 256)])
def test_every_width(isa: str, k_dim: int, v_dim: int) -> None:
    layout = layout_of(("int4", "int4"), k_dim, v_dim)
    seq = PagedSequence(isa, 100, layout, group=2, has_sinks=True)
    seq.check(20, 100)


@every_isa
@every_kind
@every_block
def test_alone_together_split_and_by_chunks(isa: str, kinds: Kinds, block_size: int) -> None:
    seq = sequence(isa, 530, kinds, block_size)
    whole = seq.rows(0, 530)
    for begin, end in ((0, 90), (440, 530)):
        together = seq.rows(begin, end)
        same_bits(together, whole[begin:end])
        same_bits(seq.rows(begin, end, split_chunks=True), together)
        for cut in (1, 4, 15, 16, 17, 32, 33, 63, 64, 72):
            parts = seq.rows(begin, begin + cut), seq.rows(begin + cut, end)
            same_bits(np.concatenate(parts), together)
    for row in (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 529):
        same_bits(seq.rows(row, row + 1), whole[row : row + 1])
        same_bits(seq.rows(row, row + 1, split_chunks=True), whole[row : row + 1])
    for begin in (255, 440, 511, 529):
        same_bits(seq.rows(begin, 530, shared_chunks=True), whole[begin:])


@every_isa
@every_kind
@every_block
def test_rows_that_are_sinks_are_those_of_bf16_pages(
    isa: str, kinds: Kinds, block_size: int
) -> None:
    seq = sequence(isa, 200, kinds, block_size)
    plain = PagedSequence(isa, 200, layout_of(block_size=block_size))
    got, want = seq.rows(0, 200), plain.rows(0, 200)
    if not isa.startswith("amx"):  # whose bf16 pages go through tiles
        same_bits(got[:block_size], want[:block_size])
    assert not np.array_equal(got[block_size:], want[block_size:])


@every_isa
@every_kind
def test_unwritten_slots_do_not_show(isa: str, kinds: Kinds) -> None:
    for tokens in (5, 20, 40, 300):
        seq = sequence(isa, tokens, kinds, 32)
        want = seq.rows(0, tokens)
        assert np.isfinite(want).all()
        assert seq.sinks is not None
        for pages in (seq.pages, seq.sinks[1]):
            clean = pages.copy()
            for garbage in (0x00, 0x7F, 0x80):
                pages[clean == 0xFF] = garbage
                seq.write()
                same_bits(seq.rows(0, tokens), want)


@every_isa
@every_kind
def test_poison_does_not_reach_the_rows_before_it(isa: str, kinds: Kinds) -> None:
    seq = sequence(isa, 100, kinds, 32, group=1)
    want = seq.rows(0, 100)
    for token in (0, 1, 30, 31, 32, 33, 63, 64):
        k, v = seq.k[token].copy(), seq.v[token].copy()
        seq.k[token], seq.v[token] = np.nan, np.nan
        seq.write()
        got = seq.rows(0, 100)
        same_bits(got[:token], want[:token])
        assert not np.isfinite(got[token]).any()
        seq.k[token], seq.v[token] = k, v
        seq.write()


@pytest.mark.parametrize(
    ("kinds", "sinks", "why"),
    [
        (("int8", "int8"), layout_of(), "sinks: expected beside int4 pages"),
        (("int4", "int4"), layout_of(("bf16", "f32")), "sinks: expected bf16 pages"),
        (("int4", "int4"), layout_of(block_size=16), "sinks: expected pages of the same layers"),
        (("int4", "int4"), layout_of(kv_heads=1), "sinks: expected pages of the same layers"),
    ],
)
def test_what_does_not_fit_is_refused(kinds: Kinds, sinks: native.KVLayout, why: str) -> None:
    seq = PagedSequence("base", 64, layout_of(kinds))
    seq.sinks = sinks, np.zeros(sinks.block_stride, np.uint8), 0
    with pytest.raises(ValueError, match=why):
        seq.rows(0, 64)


def test_sinks_beside_a_window_or_in_no_block_are_refused() -> None:
    seq = sequence("base", 64, ("int4", "int4"), 32)
    assert seq.sinks is not None
    seq.sinks = (*seq.sinks[:2], 3)
    with pytest.raises(ValueError, match="sinks: expected a block below 3, got 3"):
        seq.rows(0, 64)
    seq = sequence("base", 64, ("int4", "int4"), 32, window=40)
    with pytest.raises(ValueError, match="window: expected 0 beside sinks, got 40"):
        seq.rows(0, 64)
