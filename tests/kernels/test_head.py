"""The head over vocabulary tiles: summaries, edits, candidates, log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.batch import EDIT
from octavo.kernels import available_isas, native
from tests.kernels import rows_twin as twin
from tests.kernels.exact import check_bits
from tests.kernels.guard import guarded
from tests.kernels.rows_twin import some_logits

F32 = np.float32
INF = np.inf
TILE = native.VOCAB_TILE
each_isa = pytest.mark.parametrize("isa", available_isas())
quick = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def summaries_of(isa, logits):
    """Every tile's summary, as the three arrays that merge_summaries takes."""
    tiles = [
        native.summarize_tile(isa, logits[i : i + TILE], i) for i in range(0, logits.size, TILE)
    ]
    maxima, sums, best, _ = zip(*tiles, strict=True)
    return np.array(maxima, F32), np.array(sums, F32), np.array(best, np.int32)


def check_summary(got, want):
    assert got[2] == want[2]
    check_bits(np.array([*got[:2], got[3]], F32) + F32(0), np.array([*want[:2], want[3]]) + F32(0))


@each_isa
@quick
@given(
    n=st.integers(1, TILE), base=st.integers(0, 99), seed=seeds, holes=st.sampled_from([0, 0.5, 1])
)
def test_a_tile_summary_is_its_twin(isa, n, base, seed, holes):
    logits = some_logits(np.random.default_rng(seed), n, holes, steps=2)
    got = native.summarize_tile(isa, guarded(logits), base)
    check_summary(got, twin.summarize_tile(isa, logits, base))


@each_isa
@pytest.mark.parametrize("vocab", [1, 1000, 1024, 1025, 49152, 100_003, native.MAX_VOCAB])
def test_the_whole_row_is_its_twin_and_near_the_exact_log_sum_exp(isa, vocab):
    logits = some_logits(np.random.default_rng(vocab), vocab, steps=8)
    got = native.merge_summaries(isa, *summaries_of(isa, logits))
    check_summary(got, twin.whole_row(isa, logits))
    assert got[2] == np.argmax(logits)
    wide = logits.astype(np.float64)
    exact = wide.max() + np.log(np.exp(wide - wide.max()).sum())
    # error of the sum: exp 2.5e-7, its argument (below 2^6) 2^-19, 70 + vocab/1024 additions
    bound = 2.5e-7 + 2.0**-19 + (70 + vocab / 1024) * 2.0**-24 + abs(exact) * 2.0**-24
    assert abs(got[3] - exact) <= bound


@each_isa
def test_ties_go_to_the_lowest_token_across_tiles(isa):
    logits = np.zeros(3 * TILE, F32)
    logits[[TILE + 7, TILE + 900, 2 * TILE]] = 5.0
    assert native.merge_summaries(isa, *summaries_of(isa, logits))[2] == TILE + 7


@each_isa
def test_nan_never_wins_and_shows_in_the_sum(isa):
    logits = np.array([np.nan, 1.0, 3.0, np.nan, 3.0, -INF], F32)
    largest, total, best, lse = native.summarize_tile(isa, logits, 100)
    assert (largest, best) == (3.0, 102)
    assert np.isnan([total, lse]).all()
    largest, _, best, _ = native.summarize_tile(isa, np.full(40, np.nan, F32), 7)
    assert (largest, best) == (-INF, 7)
    nan_first = (
        np.array([-INF, 1.0], F32),
        np.array([np.nan, 1.0], F32),
        np.array([0, 5], np.int32),
    )
    assert native.merge_summaries(isa, *nan_first)[2] == 5


@each_isa
def test_all_masked_gives_the_first_token_and_no_nan(isa):
    assert native.summarize_tile(isa, np.full(33, -INF, F32), 64) == (-INF, 0.0, 64, -INF)
    tiles = (np.full(3, -INF, F32), np.zeros(3, F32), np.array([0, 16, 32], np.int32))
    assert native.merge_summaries(isa, *tiles) == (-INF, 0.0, 0, -INF)


def edits_of(*records):
    return np.array(list(records), EDIT)


def edit(isa, logits, base, mask, edits):
    out = guarded(logits)
    words = None if mask is None else guarded(mask)
    native.edit_tile(isa, out, base, words, guarded(edits.view(np.uint8).reshape(-1, 12)))
    return out


@each_isa
def test_edits_scale_by_sign_then_add_then_the_mask_decides(isa):
    logits = np.array([2.0, -2.0, 0.0, 1.0, 5.0], F32)
    edits = edits_of((31, 9, 9), (32, 4, 1), (33, 4, 0), (34, 4, 0.5), (36, 1, -1), (37, 9, 9))
    assert edit(isa, logits, 32, None, edits).tolist() == [1.5, -8.0, 0.5, 1.0, 4.0]
    mask = np.array([0, 0b10011], np.uint32)
    assert edit(isa, logits, 32, mask, edits).tolist() == [1.5, -8.0, -INF, -INF, 4.0]
    raised = edits_of((34, 1, 1e30))
    assert edit(isa, logits, 32, mask, raised)[2] == -INF


@each_isa
@quick
@given(n=st.integers(1, 300), place=st.integers(0, 8), seed=seeds, masked=st.booleans())
def test_edits_and_mask_are_their_twin(isa, n, place, seed, masked):
    rng, base = np.random.default_rng(seed), 16 * place
    logits, vocab = some_logits(rng, n), base + n
    tokens = np.flatnonzero(rng.random(vocab + 50) < 0.1)
    edits = np.zeros(tokens.size, EDIT)
    edits["token"], edits["scale"] = tokens, rng.uniform(0.5, 2, tokens.size)
    edits["add"] = rng.standard_normal(tokens.size)
    mask = rng.integers(0, 2**32, -(-vocab // 32), dtype=np.uint32) if masked else None
    check_bits(edit(isa, logits, base, mask, edits), twin.edit_tile(logits, base, mask, edits))


def top_k(isa, logits, k, base=0):
    ids, values = guarded(np.full(k, -7, np.int32)), guarded(np.full(k, np.nan, F32))
    native.top_k_tile(isa, ids, values, guarded(logits), base)
    return ids, values


@each_isa
@quick
@given(
    n=st.integers(1, TILE),
    k=st.integers(0, native.MAX_TOP_K),
    seed=seeds,
    holes=st.sampled_from([0, 0.9]),
    steps=st.sampled_from([None, 1, 0.1]),
)
def test_candidates_of_a_tile_are_its_twin(isa, n, k, seed, holes, steps):
    logits = some_logits(np.random.default_rng(seed), n, holes, steps)
    ids, values = top_k(isa, logits, k, base=2048)
    want_ids, want_values = twin.top_k_tile(logits, 2048, k)
    assert ids.tolist() == want_ids.tolist()
    check_bits(values, want_values)


@each_isa
@pytest.mark.parametrize("order", ["rising", "falling", "equal"])
@pytest.mark.parametrize("k", [1, 16, 17, 33, 64])
def test_candidates_in_bad_orders(isa, order, k):
    n = 3000
    logits = {"rising": np.arange(n), "falling": -np.arange(n), "equal": np.zeros(n)}[order].astype(
        F32
    )
    ids, values = top_k(isa, logits, k)
    want = range(n - 1, n - 1 - k, -1) if order == "rising" else range(k)
    assert ids.tolist() == list(want)
    check_bits(values, logits[list(want)] + F32(0))


@each_isa
def test_candidates_skip_nan_and_masked_tokens(isa):
    logits = np.array([np.nan, -INF, -3.0, -0.0, 0.0, INF, -INF], F32)
    ids, values = top_k(isa, logits, 6, base=10)
    assert ids.tolist() == [15, 13, 14, 12, -1, -1]  # -0 ties with 0: the lower token first
    assert values.tolist() == [INF, 0.0, 0.0, -3.0, -INF, -INF]


@each_isa
@quick
@given(
    vocab=st.integers(1, 5000), k=st.integers(1, 64), seed=seeds, holes=st.sampled_from([0, 0.99])
)
def test_merged_candidates_are_those_of_the_whole_row(isa, vocab, k, seed, holes):
    logits = some_logits(np.random.default_rng(seed), vocab, holes, steps=4)
    tiles = [top_k(isa, logits[i : i + TILE], k, i) for i in range(0, vocab, TILE)]
    ids, values = (guarded(np.stack(arrays)) for arrays in zip(*tiles, strict=True))
    got_ids, got_values = guarded(np.zeros(k, np.int32)), guarded(np.zeros(k, F32))
    native.merge_top_k(isa, got_ids, got_values, ids, values)
    want_ids, want_values = twin.top_k_tile(logits, 0, k)
    assert got_ids.tolist() == want_ids.tolist()
    check_bits(got_values, want_values)


def test_bad_arguments_are_refused_by_name():
    x, ids, none = np.zeros(40, F32), np.zeros(4, np.int32), np.zeros((0, 12), np.uint8)
    with pytest.raises(ValueError, match=r"base: expected a multiple of 16, at least 0, got 8"):
        native.edit_tile("base", x, 8, None, none)
    with pytest.raises(ValueError, match="base: expected 0 to 2147483607, got 2147483647"):
        native.summarize_tile("base", x, 2**31 - 1)
    with pytest.raises(ValueError, match="base: expected 0 to 2147483607, got -1"):
        native.top_k_tile("base", ids, np.zeros(4, F32), x, -1)
    with pytest.raises(ValueError, match="base: expected 0 to 2147221503, got 2147483632"):
        native.edit_tile("base", x, 2**31 - 16, None, none)
    with pytest.raises(
        ValueError, match=r"mask: expected a bit for each of 72 tokens, got 2 words"
    ):
        native.edit_tile("base", x, 32, np.zeros(2, np.uint32), none)
    with pytest.raises(ValueError, match=r"edits: expected records of 12 bytes, got 8"):
        native.edit_tile("base", x, 0, None, np.zeros((2, 8), np.uint8))
    unsorted = edits_of((5, 1, 0), (5, 1, 0)).view(np.uint8).reshape(-1, 12)
    with pytest.raises(ValueError, match="edits: expected tokens in ascending order"):
        native.edit_tile("base", x, 0, None, unsorted)
    with pytest.raises(ValueError, match="ids: expected 0 to 64, got 65"):
        native.top_k_tile("base", np.zeros(65, np.int32), np.zeros(65, F32), x, 0)
    with pytest.raises(ValueError, match="values: expected 4 values, got 3"):
        native.top_k_tile("base", ids, x[:3], x, 0)
    with pytest.raises(ValueError, match="logits: expected 1 to 2147483647, got 0"):
        native.summarize_tile("base", x[:0], 0)
