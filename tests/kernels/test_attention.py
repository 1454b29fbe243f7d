"""Paged attention on every ISA level, against numpy.

Against the twin bit for bit where the arithmetic is IEEE single (float32 KV, and bf16 wherever the
dot is emulated), against float64 softmax everywhere, within a derived bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import KV_FORMATS, native
from tests.kernels.attention_case import (
    DIMS,
    IN_K,
    Kinds,
    PagedSequence,
    every_format,
    every_type,
    layout_of,
)
from tests.kernels.exact import F32, same_bits
from tests.kernels.levels import every_isa

pytestmark = every_isa
Change = Callable[[PagedSequence], object]


@every_type
@pytest.mark.parametrize("rows", [1, 5])
def test_decode_and_short_batches_equal_the_twin(isa: str, kinds: Kinds, rows: int) -> None:
    seq = PagedSequence(isa, 331, layout_of(kinds, k_dim=64, v_dim=32))
    seq.check(331 - rows, 331)


@every_type
def test_prefill_equals_the_twin_across_tiles_and_chunks(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 270, layout_of(kinds, k_dim=16, v_dim=32, kv_heads=1), group=2)
    seq.check(0, 270)


@pytest.mark.parametrize("dim", DIMS)
def test_every_dim(isa: str, dim: int) -> None:
    for kinds in (("bf16", "f32"), ("f32", "bf16")):
        layout = layout_of(kinds, dim, DIMS[-1 - DIMS.index(dim)])
        PagedSequence(isa, 75, layout, group=1).check(70, 75)


@pytest.mark.parametrize("group", [*range(1, 18), 23, 25, 47, 48, 49, 71, 96, 127, 128])
def test_every_group(isa: str, group: int) -> None:
    PagedSequence(isa, 67, layout_of(kv_heads=1, k_dim=16, v_dim=16), group=group).check(60, 67)


@every_format
@pytest.mark.parametrize("dims", [(512, 512), (576, 512)])
def test_wide_heads_and_many_of_them_equal_the_twin(
    isa: str, kinds: Kinds, dims: tuple[int, int]
) -> None:
    seq = PagedSequence(isa, 140, layout_of(kinds, *dims, kv_heads=1), group=16)
    seq.check(0, 3)
    seq.check(132, 140)
    together = seq.rows(60, 140)
    same_bits(np.concatenate([seq.rows(60, 61), seq.rows(61, 140)]), together)
    same_bits(seq.rows(60, 140, split_chunks=True), together)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_shape(isa: str, data: st.DataObject) -> None:
    draw, dims, types = data.draw, st.sampled_from(DIMS[:5]), st.sampled_from(list(KV_FORMATS))
    k_format = draw(types)
    own = st.just(IN_K) if KV_FORMATS[k_format].gives_v else types
    layout = layout_of(
        (k_format, draw(types | own)), draw(dims), draw(dims), draw(st.sampled_from([16, 32, 64])),
        kv_heads=draw(st.integers(1, 3)),
    )  # fmt: skip
    end = draw(st.integers(1, 300))
    seq = PagedSequence(
        isa, end, layout, group=draw(st.sampled_from([*range(1, 17), 48, 71, 128])),
        seed=draw(st.integers(0, 99)),
        window=draw(st.integers(0, end + 1)), softcap=draw(st.sampled_from([0.0, 0.5, 50.0])),
        magnitude=draw(st.sampled_from([0.0, 1.0, 30.0])), has_sink_logits=draw(st.booleans()),
        has_slopes=draw(st.booleans()), rounded_slopes=draw(st.booleans()),
    )  # fmt: skip
    seq.check(end - draw(st.integers(1, min(end, 12))), end)


@every_format
def test_a_window_of_any_length(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 150, layout_of(kinds, k_dim=16, v_dim=16, kv_heads=1), group=1)
    full = seq.rows(100, 150)
    for window in range(1, 152, 7):
        seq.window = window
        seq.check(140, 150)
    seq.window = 150  # the last row sees all there is
    same_bits(seq.rows(100, 150), full)


@every_format
@pytest.mark.parametrize("softcap", [0.75, 50.0])
@pytest.mark.parametrize("window", [0, 40])
def test_softcap_bounds_the_scores(isa: str, kinds: Kinds, softcap: float, window: int) -> None:
    layout = layout_of(kinds, k_dim=64, v_dim=32)
    seq = PagedSequence(isa, 331, layout, softcap=softcap, window=window, magnitude=40.0)
    seq.check(60, 75)
    seq.check(325, 331)
    capped = seq.rows(325, 331)
    seq.softcap = 0.0
    assert np.abs(seq.rows(325, 331) - capped).max() > 1e-3


def test_a_softcap_far_above_the_scores_is_none(isa: str) -> None:
    seq = PagedSequence(isa, 90, layout_of(("f32", "f32")), softcap=9e5)
    capped = seq.rows(80, 90)
    seq.softcap = 0.0
    np.testing.assert_allclose(seq.rows(80, 90), capped, rtol=1e-5, atol=1e-6)


@every_format
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (40, 0.0), (0, 2.0)])
def test_sink_logits_take_their_share(isa: str, kinds: Kinds, window: int, softcap: float) -> None:
    layout = layout_of(kinds, k_dim=64, v_dim=32)
    seq = PagedSequence(isa, 331, layout, softcap=softcap, window=window, has_sink_logits=True)
    for begin, end in ((0, 20), (250, 260), (325, 331)):
        seq.check(begin, end)
    shared, seq.sink_logits = seq.rows(325, 331), None
    alone = seq.rows(325, 331)
    assert np.all(np.abs(shared) < np.abs(alone) + 1e-6)
    assert np.abs(shared - alone).max() > 1e-3


@every_format
def test_sink_logits_far_below_and_far_above_the_scores(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 300, layout_of(kinds))
    want = seq.rows(290, 300)
    for low in (-200.0, -1e30, -np.inf):
        seq.sink_logits = np.full(6, low, F32)
        np.testing.assert_allclose(seq.rows(290, 300), want, rtol=2e-7)
    seq.sink_logits[4] = 1e30
    got = seq.rows(290, 300)
    assert not got[:, 4].any()
    np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=2e-7)


@every_format
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (300, 0.0), (0, 2.0)])
@pytest.mark.parametrize("rounded", [False, True])
def test_slopes_raise_what_is_near(
    isa: str, kinds: Kinds, window: int, softcap: float, rounded: bool
) -> None:
    layout = layout_of(kinds, k_dim=64, v_dim=32)
    seq = PagedSequence(
        isa, 531, layout, softcap=softcap, window=window, has_slopes=True, rounded_slopes=rounded
    )
    for begin, end in ((0, 20), (250, 260), (525, 531)):
        seq.check(begin, end)
    raised, seq.slopes = seq.rows(525, 531), None
    assert np.abs(raised - seq.rows(525, 531)).max() > 1e-2


@every_format
def test_a_steep_slope_leaves_a_row_its_own_v(isa: str, kinds: Kinds) -> None:
    seq = PagedSequence(isa, 300, layout_of(kinds), group=2, window=1)
    want, seq.window = seq.rows(250, 300), 0
    for steep in (1e3, 9e5):
        seq.slopes = np.full(4, steep, F32)
        np.testing.assert_allclose(seq.rows(250, 300), want, rtol=1e-6)


def test_a_window_of_one_gives_back_the_rows_own_v(isa: str) -> None:
    seq = PagedSequence(isa, 90, layout_of(("f32", "f32"), 16, 32), group=2, window=1)
    np.testing.assert_allclose(seq.rows(0, 90), np.repeat(seq.v, 2, axis=1), rtol=1e-6)


def test_blocks_before_the_window_are_never_looked_up(isa: str) -> None:
    seq = PagedSequence(isa, 700, layout_of(), window=100)
    want = seq.rows(690, 700)
    seq.table[: (690 - 99) // 32] = -1  # freed long ago
    same_bits(seq.rows(690, 700), want)
    same_bits(seq.rows(690, 700, split_chunks=True), want)


def table(*blocks: int) -> NDArray[np.int32]:
    return np.array(blocks, np.int32)


def call(isa: str, name: str, change: Change) -> None:
    seq = PagedSequence(isa, 70, layout_of())
    arguments = {
        "isa": isa, "out": np.empty((1, 6, 32), F32), "q": seq.q[-1:], "pages": seq.pages,
        "layout": seq.layout, "block_table": seq.table, "layer": 1,
        "first_position": seq.tokens - 1, "scale": 1.0, "window": 0, "softcap": 0.0,
    }  # fmt: skip
    native.attention(**(arguments | {name: change(seq)}))  # type: ignore[arg-type]


OTHER_TYPE = "incompatible function arguments"
FAR = r"first_position and q: expected positions below 2\^30, got 1073741825"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("isa", lambda s: "sse9", "isa: expected one of base"),
        ("layer", lambda s: 2, r"layer: expected 0\.\.1, got 2"),
        ("scale", lambda s: 0.0, "scale: expected a positive finite number"),
        ("scale", lambda s: float("nan"), "scale: expected a positive finite number"),
        ("softcap", lambda s: -1.0, r"softcap: expected 0 \(none\) or a number from 0.001"),
        ("softcap", lambda s: 1e-9, r"softcap: expected 0 \(none\) or a number from 0.001"),
        ("softcap", lambda s: float("nan"), "softcap: expected 0"),
        ("softcap", lambda s: float("inf"), "softcap: expected 0"),
        ("sink_logits", lambda s: np.zeros(5, F32), "sink_logits: expected 6 values, got 5"),
        ("sink_logits", lambda s: np.zeros(6), OTHER_TYPE),
        ("slopes", lambda s: np.zeros(7, F32), "slopes: expected 6 values, got 7"),
        ("slopes", lambda s: np.full(6, np.nan, F32), "slopes: expected numbers between"),
        ("slopes", lambda s: np.full(6, 1e6, F32), "slopes: expected numbers between"),
        ("window", lambda s: -1, "window: expected 0 .all. or more, got -1"),
        ("first_position", lambda s: -1, "first_position: expected at least 0, got -1"),
        ("first_position", lambda s: 2**30, FAR),
        ("first_position", lambda s: 96, "block_table: expected 4 blocks, got 3"),
        ("block_table", lambda s: table(0, 1, 5), "block_table: expected ids below 5, got 5"),
        ("block_table", lambda s: table(0, -1, 1), "block_table: expected ids below 5, got -1"),
        ("q", lambda s: s.q[-1:, :5].copy(), "q: expected 1 to 128 times 2 heads, got 5"),
        ("q", lambda s: s.q[-1:, :, :16].copy(), "q: expected 32 dims, got 16"),
        ("q", lambda s: s.q[:0], "q: expected at least 1 row, got 0"),
        ("out", lambda s: np.empty((2, 6, 32), F32), "out: expected 1 rows, got 2"),
        ("pages", lambda s: s.pages[:-64], "pages: expected a multiple of"),
        ("pages", lambda s: s.pages[1:], "pages: expected 64-byte alignment"),
        # other dtypes and strides are never converted
        ("q", lambda s: s.q[-1:].astype(np.float64), OTHER_TYPE),
        ("q", lambda s: np.asfortranarray(s.q[-2:])[-1:], OTHER_TYPE),
        ("out", lambda s: np.empty((1, 6, 64), F32)[:, :, ::2], OTHER_TYPE),
        ("pages", lambda s: s.pages.view(np.int8), OTHER_TYPE),
        ("block_table", lambda s: s.table.astype(np.int64), OTHER_TYPE),
    ],
)
def test_attention_refuses(isa: str, name: str, change: Change, message: str) -> None:
    with pytest.raises(TypeError if message == OTHER_TYPE else ValueError, match=message):
        call(isa, name, change)
