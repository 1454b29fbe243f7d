"""Draws: tokens that depend on their counters alone, penalties, log-probabilities."""

from __future__ import annotations

import hashlib
import struct
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.batch import Want
from octavo.engine.decoding import make_decoding
from octavo.engine.decoding.draws import Draws, edits_of
from octavo.engine.decoding.uniforms import RowUniforms
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Decoding, HeadRow
from octavo.kernels import default_isa, native
from octavo.request import RequestOptions, TokenLogprobs
from octavo.sampling_params import SamplingParams

VOCAB = 64
uniform = native.uniform
DRAWS = Draws(default_isa(), VOCAB, frozenset())
FLAT = np.zeros(VOCAB, np.float32)


def branch(prompt: list[int], answer: list[int], **options: object) -> Branch:
    params = SamplingParams.parse({"temperature": 0, **options})
    request = Request(
        0, params, RequestOptions(), tuple(prompt), seed=5,
        sampling=params.sampling(), max_tokens=9,
    )  # fmt: skip
    request.branches[0].tokens += answer
    return request.branches[0]


def lse(logits: np.ndarray) -> float:
    return float(np.log(np.exp(logits.astype(np.float64)).sum()))


Drawn = tuple[int, int, TokenLogprobs | None]  # its answer, its token and that one's logprobs


def decoding(one: Branch) -> Decoding:
    return make_decoding(one.request, DRAWS)


def draw(one: Branch, logits: np.ndarray) -> list[Drawn]:
    wanted = decoding(one).want(one)
    assert wanted is not None
    row = HeadRow(one, one.num_tokens - 1, 0, True, wanted, 0, lse(logits))
    if wanted.want is not Want.DRAW:
        row.logits = logits
    else:  # what the head does
        scratch = np.empty(native.sample_scratch(VOCAB), np.uint64)
        u, edited = RowUniforms([row]).at([row.position]), DRAWS.edit(logits, wanted.edits)
        assert u is not None
        how = wanted.temperature, 0, 1.0, 0.0, float(u[0]), scratch
        row.token = native.sample(default_isa(), edited, *how)
        row.logit = float(logits[row.token])
    decision = decoding(one).decide(one.request, [row])
    return [(each.answer, each.token, each.logprobs) for each in decision.continuations]


def hashed(seed: int, answer: int, position: int) -> float:
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, answer, position), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def test_a_draw_is_a_hash_of_its_counters() -> None:
    draws = [uniform(*counters) for counters in product(range(9), repeat=3)]
    assert draws == [hashed(*counters) for counters in product(range(9), repeat=3)]
    assert len(set(draws)) == 729
    assert 0 <= min(draws) < max(draws) < 1
    assert abs(np.mean(draws) - 0.5) < 0.05


@given(seed=st.integers(0, 2**64 - 1), answer=st.integers(0, 2**31), position=st.integers(0, 2**31))
def test_counters_of_any_size_are_hashed_whole(seed: int, answer: int, position: int) -> None:
    assert uniform(seed, answer, position) == hashed(seed, answer, position)


def test_numbers_of_many_rows_are_those_of_each() -> None:
    counters = np.array([(5, 0), (2**64 - 1, 3), (0, 9)], np.uint64)
    positions, out = np.array([16, 0, 2**31 - 1], np.int32), np.empty(3)
    native.uniforms(out, counters, positions)
    assert out.tolist() == [uniform(5, 0, 17), uniform(2**64 - 1, 3, 1), uniform(0, 9, 2**31)]
    for wrong, got in (counters[:2], "2 of 2"), (np.zeros((3, 1), np.uint64), "1 of 3"):
        with pytest.raises(ValueError, match=f"counters: expected 2 of each of 3 rows, got {got}"):
            native.uniforms(out, wrong, positions)
    with pytest.raises(ValueError, match="positions: expected 3 values, got 2"):
        native.uniforms(out, counters, positions[:2])


@pytest.mark.parametrize("temperature", [0, 5])
def test_what_fills_up_the_head_is_never_drawn_or_listed(temperature: float) -> None:
    padded = np.concatenate([np.linspace(0, 1, VOCAB), np.full(16, 9)]).astype(np.float32)
    of_tokens = lse(padded[:VOCAB])
    seen = set()
    for seed in range(300):
        one = branch([1], [], temperature=temperature, logprobs=3, repetition_penalty=1.1)
        one.request.seed = seed
        wanted = decoding(one).want(one)
        assert wanted is not None
        row = HeadRow(one, 0, 0, True, wanted, 0, of_tokens, padded)
        ((token, logprobs),) = [
            (each.token, each.logprobs)
            for each in decoding(one).decide(one.request, [row]).continuations
        ]
        assert logprobs is not None
        assert [t for t, _ in logprobs.top] == [VOCAB - 1, VOCAB - 2, VOCAB - 3]
        seen.add(token)
    assert max(seen) == VOCAB - 1
    assert len(seen) == (1 if temperature == 0 else VOCAB)


def test_a_token_is_drawn_with_its_own_seed_index_and_position() -> None:
    """Of 64 equal logits, u picks the one at 64 u."""
    drawn = set()
    for seed, (prompt, answer), index in product(
        (0, 5, 2**64 - 1), ((1, 1), (1, 2), (4, 1)), (0, 3)
    ):
        one = branch([3] * prompt, [7] * answer, temperature=1.0)
        one.request.seed, one.index = seed, index
        want = int(64 * uniform(seed, index, prompt + answer))
        assert draw(one, FLAT) == [(index, want, None)]
        drawn.add(want)
    assert len(drawn) > 9


def test_answers_part_at_their_first_token_and_draw_for_themselves_after_it() -> None:
    """However many there are, those of one index are the same."""
    for n in (1, 2, 7):
        one = branch([1, 2, 3], [], temperature=1.0, n=n)
        assert draw(one, FLAT) == [(i, int(64 * uniform(5, i, 3)), None) for i in range(n)]
    other = Branch(one.request, 1, [1, 2, 3, 9])
    one.tokens.append(8)
    one.request.branches.append(other)
    assert [index for index, *_ in draw(one, FLAT)] == [0]
    assert draw(other, FLAT) == [(1, int(64 * uniform(5, 1, 4)), None)]


def test_each_limit_of_a_draw_reaches_the_kernel() -> None:
    logits = -np.arange(VOCAB, dtype=np.float32) / 64  # nearly flat
    logits[0] += 1

    def drawn(**options: object) -> set[int]:
        each = [draw(branch([1] * n, [2], **options), logits) for n in range(1, 51)]
        return {token for ((_, token, _),) in each}

    assert max(drawn(temperature=1.0)) > 40
    assert drawn(temperature=1.0, top_k=2) == {0, 1}
    assert drawn(temperature=1.0, min_p=0.99) == {0}
    assert drawn(temperature=1.0, top_p=0.01) == {0}
    assert drawn(temperature=1.0, top_p=0) == {0}
    assert drawn(temperature=0.01) == {0}


def test_penalties_are_edits_of_the_tokens_seen() -> None:
    asked = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    edits = edits_of(branch([9, 3, 3], [4, 9, 4], **asked))
    assert edits["token"].tolist() == [3, 4, 9]
    assert edits["scale"].tolist() == [1.5, 1.5, 1.5]
    assert edits["add"].tolist() == [0.0, -1.0, -0.75]  # the prompt's own 3s do not count
    assert len(edits_of(branch([1, 2], [3]))) == 0
    assert edits_of(branch([1, 2], [3], presence_penalty=1))["token"].tolist() == [3]
    frequent = edits_of(branch([1, 2], [3, 3], frequency_penalty=0.5))
    assert (frequent["token"].tolist(), frequent["add"].tolist()) == ([3], [-1.0])


def test_biases_and_penalties_are_one_edit_of_each_token() -> None:
    biases = {9: 2.0, 5: -100.0, 3: 0.5}
    alone = edits_of(branch([9, 3], [4], logit_bias=biases))
    assert alone.tolist() == [(3, 1.0, 0.5), (5, 1.0, -100.0), (9, 1.0, 2.0)]
    asked = {"repetition_penalty": 1.5, "presence_penalty": 0.5}
    edits = edits_of(branch([9, 3], [4, 3], logit_bias=biases, **asked))
    assert edits.tolist() == [(3, 1.5, 0.0), (4, 1.5, -0.5), (5, 1.0, -100.0), (9, 1.5, 2.0)]
    answer = edits_of(branch([9, 3], [], logit_bias=biases, presence_penalty=0.5))
    assert answer.tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("options", "want", "edits"),
    [
        ({"temperature": 0}, Want.ARGMAX, []),
        ({"temperature": 0, "repetition_penalty": 2.0}, Want.ARGMAX, [1, 2]),
        ({"temperature": 0, "logprobs": 0}, Want.LOGITS, []),
        ({"temperature": 0.5}, Want.DRAW, []),
        ({"temperature": 0.5, "logprobs": 0}, Want.DRAW, []),
        ({"temperature": 0.5, "logprobs": 1}, Want.LOGITS, []),
        ({"temperature": 0.5, "presence_penalty": 1}, Want.DRAW, [2]),
        ({"temperature": 0.5, "top_k": 3}, Want.LOGITS, []),
        ({"temperature": 0.5, "top_p": 0.9}, Want.LOGITS, []),
        ({"temperature": 0.5, "min_p": 0.1}, Want.LOGITS, []),
        ({"temperature": 0.5, "n": 2}, Want.DRAW, []),  # they have parted: 2 is the answer's
        ({"temperature": 0, "logit_bias": {7: 1}}, Want.ARGMAX, [7]),
        ({"temperature": 0.5, "logit_bias": {7: 1}}, Want.DRAW, [7]),
        ({"beam_width": 3}, Want.TOP_K, []),
    ],
)
def test_a_row_asks_for_no_more_than_its_draw_needs(
    options: dict[str, object], want: Want, edits: list[int]
) -> None:
    one = branch([1], [2], **options)
    wanted = decoding(one).want(one)
    assert wanted is not None
    assert (wanted.want, wanted.edits["token"].tolist()) == (want, edits)
    assert wanted.temperature == (0.5 if want is Want.DRAW else 0)


def test_the_row_that_answers_part_from_is_drawn_from_by_each() -> None:
    for n, want in ((1, Want.DRAW), (2, Want.LOGITS)):
        asked = decoding(one := branch([1, 2], [], temperature=0.5, n=n)).want(one)
        assert asked is not None
        assert asked.want is want


def test_of_a_token_that_the_head_drew_the_unedited_logit_is_told() -> None:
    logits = FLAT.copy()
    logits[7] = 3
    one = branch([1], [2], temperature=1.0, logprobs=0, logit_bias={7: 50.0})
    assert draw(one, logits) == [(0, 7, TokenLogprobs(7, 3 - lse(logits), ()))]


def test_greedy_with_logprobs_reports_the_unedited_distribution() -> None:
    logits = FLAT.copy()
    logits[[7, 8, 9]] = [5, 4, 3]
    one = branch([7], [], temperature=0, logprobs=2, repetition_penalty=2.0)
    ((_, token, given),) = draw(one, logits)
    assert token == given.token_id == 8  # 5 / 2 < 4
    assert given.logprob == pytest.approx(4 - lse(logits), abs=1e-6)
    assert [token for token, _ in given.top] == [7, 8]
    assert logits[7] == 5  # the row itself is not edited


def test_logprobs_are_of_the_token_and_of_the_likeliest_with_ties_to_the_lowest() -> None:
    logits = FLAT.copy()
    logits[[40, 20, 30]] = [2, 1, 1]
    given = DRAWS.logprobs(logits, lse(logits), 3, 3)
    assert [t for t, _ in given.top] == [40, 20, 30]
    assert [lp - given.logprob for _, lp in given.top] == pytest.approx([2, 1, 1])
    assert DRAWS.logprobs(logits, lse(logits), 3, 0).top == ()
