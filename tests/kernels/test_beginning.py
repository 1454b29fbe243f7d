"""Attention to the beginning beside a window: rows that are far from it meet it with another q."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.attention_case import Kinds, PagedSequence, every_format, layout_of
from tests.kernels.exact import F32, same_bits
from tests.kernels.levels import every_isa

pytestmark = every_isa

# Beginning and window: of a block, up to the end of a tile, over a chunk; a window of less than a
# tile, and one over several chunks.
SHAPES = (16, 20), (32, 100), (64, 300), (288, 90), (320, 400)
every_shape = pytest.mark.parametrize(("beginning", "window"), SHAPES)


def sequence(isa: str, kinds: Kinds, beginning: int, window: int, **options: Any) -> PagedSequence:
    layout = layout_of(kinds, block_size=16, k_dim=32, v_dim=48)
    return PagedSequence(isa, 830, layout, window=window, beginning=beginning, **options)


@every_format
@every_shape
def test_rows_equal_the_twin(isa: str, kinds: Kinds, beginning: int, window: int) -> None:
    seq = sequence(isa, kinds, beginning, window)
    far = beginning + window
    for begin, end in ((far - 5, far + 8), (far, far + 1), (825, 830), (829, 830)):
        seq.check(begin, end)


@every_format
@every_shape
@pytest.mark.parametrize(("softcap", "sinks"), [(0.0, False), (2.0, True)])
def test_alone_together_split_and_by_chunks(
    isa: str, kinds: Kinds, beginning: int, window: int, softcap: float, sinks: bool
) -> None:
    seq = sequence(isa, kinds, beginning, window, softcap=softcap, has_sink_logits=sinks)
    far = beginning + window
    for first, end in ((far - 30, far + 40), (740, 830)):
        together = seq.rows(first, end)
        same_bits(seq.rows(first, end, split_chunks=True), together)
        for begin in (first, first + 37, end - 1):
            got = seq.rows(begin, end, shared_chunks=True)
            same_bits(got, together[begin - first :])
        for cut in (1, 17, 30, 63):
            parts = [seq.rows(first, first + cut), seq.rows(first + cut, end)]
            same_bits(np.concatenate(parts), together)
        for row in (0, 29, 30, 31, 69):
            at = first + row
            same_bits(seq.rows(at, at + 1), together[row : row + 1])
            same_bits(seq.rows(at, at + 1, split_chunks=True), together[row : row + 1])


@every_format
@every_shape
def test_rows_that_are_not_far_are_those_of_a_plain_sequence(
    isa: str, kinds: Kinds, beginning: int, window: int
) -> None:
    seq = sequence(isa, kinds, beginning, window)
    far = beginning + window
    got = seq.rows(far - 60 if far > 60 else 0, far + 20)[:-20]
    seq.beginning = seq.window = 0
    same_bits(seq.rows(far - len(got), far), got)


@every_format
@every_shape
def test_a_sequence_shorter_than_the_beginning_is_a_plain_one(
    isa: str, kinds: Kinds, beginning: int, window: int
) -> None:
    """Its block table, which ends at a page that nobody may touch, is shorter than that, too."""
    for tokens in (5, 33):
        layout = layout_of(kinds, block_size=16, k_dim=32, v_dim=48)
        seq = PagedSequence(isa, tokens, layout, window=window, beginning=beginning)
        got = seq.rows(0, tokens)
        same_bits(seq.rows(0, tokens, split_chunks=True), got)
        seq.beginning = seq.window = 0
        same_bits(seq.rows(0, tokens), got)


def test_blocks_between_are_never_looked_up(isa: str) -> None:
    seq = sequence(isa, ("bf16", "bf16"), 32, 100)
    want = seq.rows(690, 700)
    seq.table[2 : (690 - 99) // 16] = -1  # freed long ago
    same_bits(seq.rows(690, 700), want)
    same_bits(seq.rows(690, 700, split_chunks=True), want)


@every_format
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_stays_with_those_who_see_it(isa: str, kinds: Kinds, poison: float) -> None:
    seq = sequence(isa, kinds, 32, 100)
    want = seq.rows(100, 250)
    seq.k[60], seq.v[60] = poison, poison
    seq.write()
    got = seq.rows(100, 250)
    assert not np.isfinite(got[:60]).any()  # positions 100 to 159 see it
    same_bits(got[60:], want[60:])
    seq.far_q = seq.far_q.copy()
    seq.far_q[:190] = poison
    got = seq.rows(100, 250)
    same_bits(got[90:], want[90:])
    assert not np.isfinite(got[60:90]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beginning": -1}, "beginning: expected 0 to 1073741724, got -1"),
        ({"window": 0}, "beginning: expected 0 to 0, got 32"),
        ({"window": 2**30 - 31}, "beginning: expected 0 to 31, got 32"),
        ({"slopes": np.zeros(6, F32)}, "beginning: expected 0 beside slopes, got 32"),
        ({"far_q": np.zeros((3, 6, 32), F32)}, "far_q: expected rows like those of q"),
    ],
)
def test_refusals(isa: str, change: dict[str, Any], message: str) -> None:
    seq = sequence(isa, ("bf16", "bf16"), 32, 100)
    for name, value in change.items():
        setattr(seq, name, value)
    with pytest.raises(ValueError, match=message):
        seq.rows(0, 4)


def test_a_beginning_that_is_missing_is_refused(isa: str) -> None:
    seq = sequence(isa, ("bf16", "bf16"), 32, 100)
    seq.table[1] = -1
    with pytest.raises(ValueError, match="block_table: expected ids below"):
        seq.rows(690, 700)
