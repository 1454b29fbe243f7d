"""Beam search: stories with exact numbers, every branch of a tiny vocabulary, and a slow twin."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.engine.decoding.beam_search import Beam, BeamSearch, Hypothesis

Tokens = tuple[int, ...]
Model = Callable[[Tokens], list[float]]  # log-probability of each token after these

END = 9


def search(width: int, **changes: Any) -> BeamSearch:
    usual: dict[str, Any] = {"max_tokens": 10, "end_tokens": frozenset({END}), "num_outputs": width}
    usual |= {"length_penalty": 1.0, "early_stopping": False}
    return BeamSearch(width, **usual | changes)


def run(it: BeamSearch, model: Model) -> list[Hypothesis]:
    """Search to the end, each beam given its `num_candidates` likeliest tokens."""
    while not it.done:
        old = it.beams
        top = []
        for beam in old:
            ranked = sorted(enumerate(model(beam.tokens)), key=lambda p: (-p[1], p[0]))
            top.append(ranked[: it.num_candidates])
        steps = it.advance(top)
        assert [b.tokens for b in it.beams] == [(*old[i].tokens, token) for i, token in steps]
    return it.hypotheses()


def random_model(seed: int, vocab: int) -> Model:
    def after(tokens: Tokens) -> list[float]:
        chance = random.Random(f"{seed} {tokens}")
        weights = [chance.random() ** 3 + 1e-3 for _ in range(vocab)]
        return [math.log(w / sum(weights)) for w in weights]

    return after


# ---- stories


def test_beams_fork_die_and_finish() -> None:
    it = search(2, max_tokens=3, length_penalty=0.0)
    assert it.beams == [Beam((), 0.0)]
    assert it.num_candidates == 3
    assert it.advance([[(5, -0.5), (6, -1.0), (7, -3.0), (END, -4.0)]]) == [(0, 5), (0, 6)]
    assert it.beams == [Beam((5,), -0.5), Beam((6,), -1.0)]
    # Both children of the second beam are likelier than any of the first, which dies.
    first = [(1, -2.0), (2, -2.5), (3, -3.0), (END, -9.0)]
    second = [(4, -0.25), (8, -0.75), (3, -9.0), (END, -9.0)]
    assert it.advance([first, second]) == [(1, 4), (1, 8)]
    assert it.beams == [Beam((6, 4), -1.25), Beam((6, 8), -1.75)]
    # At max_tokens the two likeliest are hypotheses, by either reason.
    steps = it.advance([[(1, -1.0), (2, -5.0)], [(END, -0.25), (1, -3.0)]])
    assert steps == []
    assert it.done
    assert it.beams == []
    assert it.hypotheses() == [
        Hypothesis((6, 8, END), -2.0, -2.0, "stop"),
        Hypothesis((6, 4, 1), -2.25, -2.25, "length"),
    ]


def test_an_end_past_the_first_width_candidates_is_no_hypothesis_and_no_beam() -> None:
    it = search(2)
    steps = it.advance([[(1, -1.0), (2, -2.0), (END, -2.5), (3, -4.0)]])
    assert steps == [(0, 1), (0, 2)]
    it.end("deadline")
    assert [h.tokens for h in it.hypotheses()] == [(1,), (2,)]


def test_an_end_among_the_first_leaves_its_place_to_the_next_candidate() -> None:
    it = search(2)
    assert it.advance([[(END, -0.5), (1, -1.0), (2, -2.0), (3, -3.0)]]) == [(0, 1), (0, 2)]
    assert not it.done


def test_several_end_tokens_leave_width_others() -> None:
    it = search(2, end_tokens=frozenset({7, 8, END}))
    assert it.num_candidates == 5
    top = [(7, -1.0), (8, -1.5), (END, -1.75), (1, -2.0), (2, -2.5), (3, -4.0)]
    assert it.advance([top]) == []  # two ends are hypotheses, no live one is as likely
    assert [h.tokens for h in it.hypotheses()] == [(7,), (8,)]


@pytest.mark.parametrize(
    ("penalty", "scores"),
    [(0.0, [-2.0, -3.0]), (1.0, [-1.5, -2.0]), (2.0, [-0.75, -2.0])],
)
def test_the_length_of_a_score_counts_the_end_token_and_no_prompt(
    penalty: float, scores: list[float]
) -> None:
    it = search(2, length_penalty=penalty)
    it.advance([[(1, -1.0), (END, -2.0)]])  # length 1
    it.advance([[(END, -2.0), (2, -8.0)]])  # length 2, -3 in all
    assert [h.score for h in it.hypotheses()] == scores


def test_early_stopping_ends_with_width_hypotheses_though_a_beam_is_better() -> None:
    top = [[(1, -0.125), (END, -3.0), (2, -4.0)]], [[(3, -0.125), (END, -3.0)], [(4, -5.0)]]
    eager, patient = search(2, early_stopping=True), search(2)
    for it in (eager, patient):
        assert it.advance(top[0]) == [(0, 1), (0, 2)]
    assert eager.advance(top[1]) == []
    assert [h.tokens for h in eager.hypotheses()] == [(1, END), (END,)]
    # (1, 3) scores -0.25 / 2 now, above the worst hypothesis: -3 / 1.
    assert patient.advance(top[1]) == [(0, 3), (1, 4)]
    assert patient.advance([[(END, -0.5), (5, -6.0)], [(6, -9.0)]]) == []
    assert [h.tokens for h in patient.hypotheses()] == [(1, 3, END), (1, END)]
    assert patient.hypotheses()[0].score == -0.75 / 3


def test_a_live_beam_that_only_equals_the_worst_hypothesis_does_not_go_on() -> None:
    it = search(1)
    assert it.advance([[(END, -1.0), (1, -1.0)]]) == []
    assert it.hypotheses() == [Hypothesis((END,), -1.0, -1.0, "stop")]


def test_ties_go_to_the_lower_parent_then_to_the_first_given() -> None:
    it = search(2)
    assert it.advance([[(3, -1.0), (4, -1.0), (5, -1.0)]]) == [(0, 3), (0, 4)]
    assert it.advance([[(7, -2.0), (8, -2.0)], [(1, -2.0), (2, -2.0)]]) == [(0, 7), (0, 8)]
    assert it.advance([[(7, -2.0)], [(1, -1.0), (2, -2.0)]]) == [(1, 1), (0, 7)]


def test_of_equal_hypotheses_the_older_is_first() -> None:
    it = search(2, length_penalty=0.0, num_outputs=1)
    it.advance([[(1, -1.0), (END, -2.0), (2, -2.5)]])
    it.advance([[(END, -1.0), (3, -3.0)], [(4, -4.0)]])
    assert [h.tokens for h in it.hypotheses()] == [(END,)]


def test_an_end_from_outside_keeps_live_beams_with_its_reason() -> None:
    it = search(2, num_outputs=2)
    it.advance([[(END, -1.0), (1, -1.5), (2, -4.0)]])
    it.end("deadline")
    assert it.done
    assert it.hypotheses() == [
        Hypothesis((END,), -1.0, -1.0, "stop"),
        Hypothesis((1,), -1.5, -1.5, "deadline"),
    ]
    unstarted = search(2)
    unstarted.end("abort")
    assert unstarted.hypotheses() == [Hypothesis((), 0.0, 0.0, "abort")]


def test_a_vocabulary_that_only_ends_leaves_fewer_hypotheses() -> None:
    it = search(4)
    assert it.advance([[(END, -0.0)]]) == []
    assert [h.tokens for h in it.hypotheses()] == [(END,)]


# ---- against definitions


def any_rules(last: int, count: int) -> st.SearchStrategy[dict[str, Any]]:
    """How a search ends: `count` end tokens at most, of those up to `last`."""
    ends = st.frozensets(st.integers(0, last), max_size=count)
    penalties = st.sampled_from([-1.0, 0.0, 0.7, 1.0, 2.0])
    return st.builds(dict, end_tokens=ends, length_penalty=penalties, early_stopping=st.booleans())


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 4), any_rules(last=3, count=2))
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_sequences(
    seed: int, vocab: int, max_tokens: int, rules: dict[str, Any]
) -> None:
    model = random_model(seed, vocab)
    width = vocab**max_tokens + 1  # more than there are branches: it never stops early
    ends, penalty = rules["end_tokens"], rules["length_penalty"]
    it = search(width, max_tokens=max_tokens, **rules)
    got = run(it, model)
    want: dict[Tokens, float] = {}
    for length in range(1, max_tokens + 1):
        for tokens in product(range(vocab), repeat=length):
            complete = tokens[-1] in ends or length == max_tokens
            if complete and not ends & set(tokens[:-1]):
                logprob = sum(model(tokens[:i])[token] for i, token in enumerate(tokens))
                want[tokens] = logprob / length**penalty
    assert {h.tokens for h in got} == set(want)
    for h in got:
        assert h.score == pytest.approx(want[h.tokens], rel=1e-12)
        assert h.finish_reason == ("stop" if h.tokens[-1] in ends else "length")
    assert [h.score for h in got] == sorted((h.score for h in got), reverse=True)


def slow_search(
    model: Model, vocab: int, width: int, max_tokens: int, end_tokens: frozenset[int],
    length_penalty: float, early_stopping: bool,
) -> list[Tokens]:  # fmt: skip
    """The definition, over whole vocabularies: all continuations, ranked, cut, until the rule says
    stop."""
    live: list[tuple[Tokens, float]] = [((), 0.0)]
    best: list[tuple[float, Tokens]] = []
    for length in range(1, max_tokens + 1):
        every = [((*t, v), p + model(t)[v]) for t, p in live for v in range(vocab)]
        every.sort(key=lambda pair: pair[1], reverse=True)
        over = [length == max_tokens or t[-1] in end_tokens for t, _ in every]
        divisor = length**length_penalty
        best += [(p / divisor, t) for (t, p), o in zip(every[:width], over, strict=False) if o]
        best = sorted(best, key=lambda pair: pair[0], reverse=True)[:width]
        live = [pair for pair, o in zip(every, over, strict=True) if not o][:width]
        full = len(best) == width
        if not live or (full and (early_stopping or live[0][1] / divisor <= best[-1][0])):
            break
    return [tokens for _, tokens in best]


@settings(deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 5), st.integers(1, 7),
    any_rules(last=8, count=3), st.data(),
)  # fmt: skip
def test_it_is_its_definition(
    seed: int, vocab: int, width: int, max_tokens: int, rules: dict[str, Any], data: st.DataObject
) -> None:
    num_outputs = data.draw(st.integers(1, width))
    model = random_model(seed, vocab)
    it = search(width, max_tokens=max_tokens, num_outputs=num_outputs, **rules)
    got = run(it, model)
    want = slow_search(model, vocab, width, max_tokens, **rules)
    assert [h.tokens for h in got] == want[:num_outputs]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 8), st.booleans())
def test_width_one_is_greedy(seed: int, vocab: int, max_tokens: int, early: bool) -> None:
    model = random_model(seed, vocab)
    tokens: Sequence[int] = ()
    while len(tokens) < max_tokens and tokens[-1:] != (0,):
        after = model(tuple(tokens))
        tokens = (*tokens, after.index(max(after)))
    it = search(1, max_tokens=max_tokens, end_tokens=frozenset({0}), early_stopping=early)
    assert [h.tokens for h in run(it, model)] == [tokens]
