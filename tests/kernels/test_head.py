"""The head over vocabulary tiles: summaries, edits, candidates, log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from octavo.batch import EDIT
from octavo.kernels import available_isas, native
from tests.kernels import rows_twin as twin
from tests.kernels.exact import F32, Floats, check_bits
from tests.kernels.guard import guarded
from tests.kernels.rows_twin import some_logits

INF = np.inf
Edits = NDArray[np.void]
Mask = NDArray[np.uint32]
Summary = tuple[float, float, int, float]
TILE = native.VOCAB_TILE
pytestmark = pytest.mark.parametrize("isa", available_isas())
quick = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def merge(isa: str, maxima: ArrayLike, sums: ArrayLike, best: ArrayLike) -> Summary:
    floats = np.array(maxima, F32), np.array(sums, F32)
    return native.merge_summaries(isa, *floats, np.array(best, np.int32))


def whole_row(isa: str, logits: Floats) -> Summary:
    """Every tile summarised, and the summaries merged."""
    starts = range(0, logits.size, TILE)
    tiles = [native.summarize_tile(isa, logits[i : i + TILE], i) for i in starts]
    maxima, sums, best, _ = zip(*tiles, strict=True)
    return merge(isa, maxima, sums, best)


def check_summary(got: Summary, want: twin.Summary) -> None:
    assert got[2] == want[2]
    check_bits(np.array([*got[:2], got[3]], F32) + F32(0), np.array([*want[:2], want[3]]) + F32(0))


def capped(isa: str, logits: Floats, cap: float) -> Floats:
    out = guarded(logits)
    native.softcap(isa, out, cap)
    return out


@quick
@given(n=st.integers(1, TILE), seed=seeds, cap=st.sampled_from([0.5, 30.0, 1e6]))
def test_a_cap_is_its_twin_and_near_the_exact_one(isa: str, n: int, seed: int, cap: float) -> None:
    logits = some_logits(np.random.default_rng(seed), n, holes=0.1)
    got = capped(isa, logits, cap)
    check_bits(got, twin.softcap(isa, logits, cap))
    assert np.abs(got).max() <= F32(cap)
    exact = cap * np.tanh(logits.astype(np.float64) / cap)
    # 3 units of tanh, and a half each of the quotient and the product
    assert np.all(np.abs(got - exact) <= 5 * 2.0**-23 * np.abs(exact))


def test_a_cap_of_edges(isa: str) -> None:
    got = capped(isa, np.array([INF, -INF, np.nan, 0, 1e38], F32), 30.0)
    check_bits(got, np.array([30, -30, np.nan, 0, 30], F32))
    for cap in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="cap: expected more than 0"):
            native.softcap(isa, np.zeros(3, F32), cap)


@quick
@given(
    n=st.integers(1, TILE), base=st.integers(0, 99), seed=seeds, holes=st.sampled_from([0, 0.5, 1])
)
def test_a_tile_summary_is_its_twin(isa: str, n: int, base: int, seed: int, holes: float) -> None:
    logits = some_logits(np.random.default_rng(seed), n, holes, steps=2)
    got = native.summarize_tile(isa, guarded(logits), base)
    check_summary(got, twin.summarize_tile(isa, logits, base))


@pytest.mark.parametrize("vocab", [1, 1000, 1024, 1025, 49152, 100_003, native.MAX_VOCAB])
def test_the_whole_row_is_its_twin_and_near_the_exact_log_sum_exp(isa: str, vocab: int) -> None:
    logits = some_logits(np.random.default_rng(vocab), vocab, steps=8)
    got = whole_row(isa, logits)
    check_summary(got, twin.whole_row(isa, logits))
    assert got[2] == np.argmax(logits)
    wide = logits.astype(np.float64)
    exact = wide.max() + np.log(np.exp(wide - wide.max()).sum())
    # error of the sum: exp 2.5e-7, its argument (below 2^6) 2^-19, 70 + vocab/1024 additions
    bound = 2.5e-7 + 2.0**-19 + (70 + vocab / 1024) * 2.0**-24 + abs(exact) * 2.0**-24
    assert abs(got[3] - exact) <= bound


def test_ties_go_to_the_lowest_token_across_tiles(isa: str) -> None:
    logits = np.zeros(3 * TILE, F32)
    logits[[TILE + 7, TILE + 900, 2 * TILE]] = 5.0
    assert whole_row(isa, logits)[2] == TILE + 7


def test_nan_never_wins_and_shows_in_the_sum(isa: str) -> None:
    logits = np.array([np.nan, 1.0, 3.0, np.nan, 3.0, -INF], F32)
    largest, total, best, lse = native.summarize_tile(isa, logits, 100)
    assert (largest, best) == (3.0, 102)
    assert np.isnan([total, lse]).all()
    largest, _, best, _ = native.summarize_tile(isa, np.full(40, np.nan, F32), 7)
    assert (largest, best) == (-INF, 7)
    assert merge(isa, [-INF, 1.0], [np.nan, 1.0], [0, 5])[2] == 5


def test_all_masked_gives_the_first_token_and_no_nan(isa: str) -> None:
    assert native.summarize_tile(isa, np.full(33, -INF, F32), 64) == (-INF, 0.0, 64, -INF)
    assert merge(isa, [-INF] * 3, [0.0] * 3, [0, 16, 32]) == (-INF, 0.0, 0, -INF)


def edits_of(*records: tuple[int, float, float]) -> Edits:
    """Of token, scale and what is added."""
    return np.array(list(records), EDIT)


def records(edits: Edits) -> NDArray[np.uint8]:
    return edits.view(np.uint8).reshape(-1, 12)


def edit(isa: str, logits: Floats, base: int, mask: Mask | None, edits: Edits) -> Floats:
    out = guarded(logits)
    words = None if mask is None else guarded(mask)
    native.edit_tile(isa, out, base, words, guarded(records(edits)))
    return out


def test_edits_scale_by_sign_then_add_then_the_mask_decides(isa: str) -> None:
    logits = np.array([2.0, -2.0, 0.0, 1.0, 5.0], F32)
    edits = edits_of((31, 9, 9), (32, 4, 1), (33, 4, 0), (34, 4, 0.5), (36, 1, -1), (37, 9, 9))
    assert edit(isa, logits, 32, None, edits).tolist() == [1.5, -8.0, 0.5, 1.0, 4.0]
    mask = np.array([0, 0b10011], np.uint32)
    assert edit(isa, logits, 32, mask, edits).tolist() == [1.5, -8.0, -INF, -INF, 4.0]
    assert edit(isa, logits, 32, mask, edits_of((34, 1, 1e30)))[2] == -INF


@quick
@given(n=st.integers(1, 300), at=st.integers(0, 8), seed=seeds, masked=st.booleans())
def test_edits_and_mask_are_their_twin(isa: str, n: int, at: int, seed: int, masked: bool) -> None:
    rng, base = np.random.default_rng(seed), 16 * at
    logits, vocab = some_logits(rng, n), base + n
    tokens = np.flatnonzero(rng.random(vocab + 50) < 0.1)
    edits = np.zeros(tokens.size, EDIT)
    edits["token"], edits["scale"] = tokens, rng.uniform(0.5, 2, tokens.size)
    edits["add"] = rng.standard_normal(tokens.size)
    mask = rng.integers(0, 2**32, -(-vocab // 32), dtype=np.uint32) if masked else None
    check_bits(edit(isa, logits, base, mask, edits), twin.edit_tile(logits, base, mask, edits))


@quick
@given(
    n=st.integers(1, TILE), at=st.integers(0, 8), seed=seeds, holes=st.sampled_from([0, 0.5, 1]),
    few=st.sampled_from([0, 0.01, 0.5, 1, None]),
)  # fmt: skip
def test_the_best_of_a_mask_is_that_of_what_it_leaves(
    isa: str, n: int, at: int, seed: int, holes: float, few: float | None
) -> None:
    rng, base = np.random.default_rng(seed), 16 * at
    logits = some_logits(rng, n, holes, steps=2)
    mask = None
    if few is not None:
        bits = rng.random(-(-(base + n) // 32) * 32) < few
        mask = guarded(np.packbits(bits, bitorder="little").view(np.uint32))
    left = edit(isa, logits, base, mask, edits_of())
    largest, _, best, _ = native.summarize_tile(isa, left, base)
    assert native.best_tile(isa, guarded(logits), base, mask) == (largest, best)


def top_k(isa: str, logits: Floats, k: int, base: int = 0) -> tuple[NDArray[np.int32], Floats]:
    ids, values = guarded(np.full(k, -7, np.int32)), guarded(np.full(k, np.nan, F32))
    native.top_k_tile(isa, ids, values, guarded(logits), base)
    return ids, values


def check_candidates(got: tuple[ArrayLike, Floats], want: tuple[ArrayLike, Floats]) -> None:
    assert np.array_equal(got[0], want[0])
    check_bits(got[1], want[1])


@quick
@given(
    n=st.integers(1, TILE), k=st.integers(0, native.MAX_TOP_K), seed=seeds,
    holes=st.sampled_from([0, 0.9]), steps=st.sampled_from([None, 1, 0.1]),
)  # fmt: skip
def test_candidates_of_a_tile_are_its_twin(
    isa: str, n: int, k: int, seed: int, holes: float, steps: float | None
) -> None:
    logits = some_logits(np.random.default_rng(seed), n, holes, steps)
    check_candidates(top_k(isa, logits, k, base=2048), twin.top_k_tile(logits, 2048, k))


@pytest.mark.parametrize("order", ["rising", "falling", "equal"])
@pytest.mark.parametrize("k", [1, 16, 17, 33, 64])
def test_candidates_in_bad_orders(isa: str, order: str, k: int) -> None:
    n = 3000
    logits = {"rising": 1, "falling": -1, "equal": 0}[order] * np.arange(n, dtype=F32)
    want = list(range(n - 1, n - 1 - k, -1) if order == "rising" else range(k))
    check_candidates(top_k(isa, logits, k), (want, logits[want] + F32(0)))


def test_candidates_skip_nan_and_masked_tokens(isa: str) -> None:
    logits = np.array([np.nan, -INF, -3.0, -0.0, 0.0, INF, -INF], F32)
    ids, values = top_k(isa, logits, 6, base=10)
    assert ids.tolist() == [15, 13, 14, 12, -1, -1]  # -0 ties with 0: the lower token first
    assert values.tolist() == [INF, 0.0, 0.0, -3.0, -INF, -INF]


@quick
@given(
    vocab=st.integers(1, 5000), k=st.integers(1, 64), seed=seeds, holes=st.sampled_from([0, 0.99])
)
def test_merged_candidates_are_those_of_the_whole_row(
    isa: str, vocab: int, k: int, seed: int, holes: float
) -> None:
    logits = some_logits(np.random.default_rng(seed), vocab, holes, steps=4)
    tiles = [top_k(isa, logits[i : i + TILE], k, i) for i in range(0, vocab, TILE)]
    ids, values = (guarded(np.stack(arrays)) for arrays in zip(*tiles, strict=True))
    merged = guarded(np.zeros(k, np.int32)), guarded(np.zeros(k, F32))
    native.merge_top_k(isa, *merged, ids, values)
    check_candidates(merged, twin.top_k_tile(logits, 0, k))


X, IDS = np.zeros(40, F32), np.zeros(4, np.int32)
NONE, TWICE = records(edits_of()), records(edits_of((5, 1, 0), (5, 1, 0)))
FAR, SHORT, FEW_BITS = 2**31 - 16, np.zeros((2, 8), np.uint8), (X, 32, np.zeros(2, np.uint32), NONE)
MANY = np.zeros(65, np.int32), np.zeros(65, F32)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("edit_tile", (X, 8, None, NONE), "base: expected a multiple of 16, at least 0, got 8"),
        ("edit_tile", (X, FAR, None, NONE), "base: expected 0 to 2146959359, got 2147483632"),
        ("summarize_tile", (X, 2**31 - 1), "base: expected 0 to 2147483607, got 2147483647"),
        ("top_k_tile", (IDS, X[:4], X, -1), "base: expected 0 to 2147483607, got -1"),
        ("edit_tile", FEW_BITS, "mask: expected a bit for each of 72 tokens, got 2 words"),
        ("edit_tile", (X, 0, None, SHORT), "edits: expected records of 12 bytes, got 8"),
        ("edit_tile", (X, 0, None, TWICE), "edits: expected tokens in ascending order"),
        ("top_k_tile", (*MANY, X, 0), "ids: expected 0 to 64, got 65"),
        ("top_k_tile", (IDS, X[:3], X, 0), "values: expected 4 values, got 3"),
        ("summarize_tile", (X[:0], 0), "logits: expected 1 to 2147483647, got 0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(
    isa: str, function: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(native, function)(isa, *arguments)
