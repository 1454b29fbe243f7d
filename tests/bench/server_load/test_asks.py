"""The requests of a load: the same for a seed, of ShareGPT's shape, alike where they should be."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.server_load.asks import (
    ANSWER_MEAN,
    LEAST,
    MOST,
    PROMPT_MEAN,
    SIGMA,
    WORDS,
    arrivals,
    length,
    make_asks,
)
from octavo.bench.server_load.config import LoadConfig

CONVERSATIONS = str(Path(__file__).with_name("conversations.json"))
SEEDS = st.integers(0, 2**63 - 1)


def clipped_mean(mean: float) -> tuple[float, float]:
    """Mean and standard deviation of a log-normal whose values are held between LEAST and MOST."""
    mu = math.log(mean) - SIGMA**2 / 2
    low, high = ((math.log(edge) - mu) / SIGMA for edge in (LEAST, MOST))

    def below(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    def moment(k: int) -> float:
        middle: float = math.exp(k * mu + (k * SIGMA) ** 2 / 2)
        middle *= below(high - k * SIGMA) - below(low - k * SIGMA)
        return float(LEAST**k) * below(low) + middle + float(MOST**k) * (1 - below(high))

    mean = moment(1)
    return mean, math.sqrt(moment(2) - mean**2)


@pytest.mark.parametrize("mean", [PROMPT_MEAN, ANSWER_MEAN])
def test_lengths_have_the_mean_of_the_shape(mean: float) -> None:
    draw, count = random.Random(1), 40_000
    expected, deviation = clipped_mean(mean)
    found = [length(draw, mean) for _ in range(count)]
    # Within four standard errors, and half a token for rounding.
    assert abs(fmean(found) - expected) < 4 * deviation / math.sqrt(count) + 0.5
    assert 0.85 * mean < expected < mean  # the docstring's: what is cut off is little


@given(SEEDS, st.floats(1, 1e5))
def test_lengths_stay_within_what_is_asked(seed: int, mean: float) -> None:
    assert LEAST <= length(random.Random(seed), mean) <= MOST


def test_a_seed_is_one_load_and_another_is_another() -> None:
    first, again, other = (make_asks(LoadConfig(requests=20, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert {ask.prompt for ask in first}.isdisjoint(ask.prompt for ask in other)
    assert len({ask.prompt for ask in first}) == 20


def test_a_smaller_load_is_the_beginning_of_a_larger_one() -> None:
    assert make_asks(LoadConfig(requests=30))[:7] == make_asks(LoadConfig(requests=7))


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 2000), SEEDS)
def test_prompts_share_their_beginning_and_nothing_else(
    shared: int, own: int, tokens: int, seed: int
) -> None:
    asks = make_asks(LoadConfig(requests=3, shared=shared, own=own, tokens=tokens, seed=seed))
    split = [ask.prompt.split(" ") for ask in asks]
    assert [len(words) for words in split] == [shared + own] * 3
    assert len({tuple(words[:shared]) for words in split}) == 1
    assert {ask.max_tokens for ask in asks} == {tokens}


def test_words_are_words_each_once() -> None:
    assert len(set(WORDS)) == len(WORDS) == 200
    assert all(word.isascii() and word.isalpha() and word.islower() for word in WORDS)


def test_answers_are_held_to_the_most() -> None:
    free, held = (make_asks(LoadConfig(max_tokens=most)) for most in (None, 100))
    assert [ask.prompt for ask in free] == [ask.prompt for ask in held]
    assert [min(ask.max_tokens, 100) for ask in free] == [ask.max_tokens for ask in held]
    assert max(ask.max_tokens for ask in free) > 100


def test_a_dataset_gives_prompts_and_lengths() -> None:
    asks = make_asks(LoadConfig(dataset=CONVERSATIONS, requests=3, shared=5, tokens=9))
    firsts = {tuple(ask.prompt.split(" ")[:5]) for ask in asks}
    questions = {ask.prompt.split(" ", 5)[5][:9] for ask in asks}
    assert (len(firsts), questions) == (1, {"Which riv", "Then tell", "Say in on"})
    assert {ask.max_tokens for ask in asks} == {9}


@given(SEEDS, st.floats(0.01, 1e4), st.integers(1, 50))
def test_arrivals_begin_at_once_and_never_go_back(seed: int, rate: float, count: int) -> None:
    found = arrivals(LoadConfig(requests=count, rate=rate, seed=seed))
    assert len(found) == count
    assert found[0] == 0
    assert found == sorted(found)
    assert found == arrivals(LoadConfig(requests=count, rate=rate, seed=seed))


def test_gaps_have_the_mean_and_the_deviation_of_a_poisson_process() -> None:
    found = arrivals(LoadConfig(requests=20_001, rate=8, seed=3))
    # The standard error of either is about 1/sqrt(n) of 1/8.
    gaps = [after - before for before, after in pairwise(found)]
    mean = fmean(gaps)
    deviation = math.sqrt(fmean((gap - mean) ** 2 for gap in gaps))
    assert mean == pytest.approx(1 / 8, rel=0.04)
    assert deviation == pytest.approx(1 / 8, rel=0.04)


def test_without_a_rate_all_are_sent_at_once() -> None:
    assert arrivals(LoadConfig(requests=4)) == arrivals(LoadConfig(requests=4, rate=math.inf))
    assert arrivals(LoadConfig(requests=4)) == [0, 0, 0, 0]
