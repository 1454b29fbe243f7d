"""What an engine answers, against the same done by hand: the whole branch computed again for
every token, one draw or one search step after it, without scheduler, cache or batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.engine.decoding.beam_search import BeamSearch, Hypothesis
from octavo.engine.decoding.draws import Draws
from octavo.engine.nouns import Branch, Request
from octavo.errors import UsageError
from octavo.records import CacheReason
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, answered, run, tiny_engine
from tests.tiny import all_logits, make_runner

RUNNER = make_runner(MODEL, POOL)
DRAWS = Draws(RUNNER.isa, RUNNER.vocab_size, frozenset())
PROMPT = TEXT[:37]


def by_hand(prompt: list[int], index: int, count: int, **params: Any) -> list[int]:
    """`count` tokens of answer `index`."""
    checked = SamplingParams.parse({"temperature": 0, **params})
    request = Request(
        0, checked, RequestOptions(), tuple(prompt), seed=checked.seed or 0,
        sampling=checked.sampling(), max_tokens=count,
    )  # fmt: skip
    one = Branch(request, index, [*prompt])
    for _ in range(count):
        logits = all_logits(RUNNER, one.tokens)[-1]
        one.tokens.append(DRAWS.draw(one, index, logits))
    return one.completion_token_ids


@pytest.mark.parametrize("n", [1, 2, 5])
def test_answer_i_is_the_same_whatever_n_is(n: int) -> None:
    asked: dict[str, Any] = {"temperature": 1.0, "seed": 11, "ignore_eos": True}
    engine = tiny_engine(MODEL, POOL)
    request = answered(engine, PROMPT, n=n, max_tokens=6, **asked)
    want = [by_hand(PROMPT, i, 6, **asked) for i in range(n)]
    assert [s.completion_token_ids for s in request.branches] == want
    assert len({tuple(w) for w in want}) == n
    assert sum(r.computed_tokens for r in engine.records) == 37 + n * 5  # the prompt once
    # One whole block, and one of each answer's own.
    assert request.peak_bytes == (1 + n) * RUNNER.block_bytes


def test_the_most_blocks_a_request_held_are_remembered_when_answers_ended() -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, PROMPT, n=3, max_tokens=6, temperature=1.0, seed=11)
    engine.step()
    engine.step()
    engine.finish_branch(request.branches[1], "stop")
    run(engine)
    assert request.peak_bytes == (1 + 3) * RUNNER.block_bytes


def test_equal_answers_held_a_block_each_until_it_was_whole() -> None:
    """At the last step they share one, which says nothing of what they held before."""
    engine = tiny_engine(MODEL, POOL)
    size = engine.kv.block_size
    request = answered(engine, TEXT[: size - 2], n=3, max_tokens=3)
    assert len({tuple(branch.tokens) for branch in request.branches}) == 1
    assert request.peak_bytes == 3 * RUNNER.block_bytes


def test_a_seed_of_0_is_a_seed_and_each_request_without_one_has_its_own() -> None:
    engine = tiny_engine(MODEL, POOL, max_rows=256)
    requests = [add(engine, PROMPT, max_tokens=1, seed=seed) for seed in (0, 0, None, None)]
    assert [r.id for r in requests] == [0, 1, 2, 3]
    assert [r.seed for r in requests[:2]] == [0, 0]
    assert len({r.seed for r in requests}) == 3


def test_a_temperature_is_a_float32_and_one_too_small_for_it_is_greedy() -> None:
    engine = tiny_engine(MODEL, POOL)
    tiny = add(engine, PROMPT, max_tokens=6, temperature=1e-50, seed=3)
    warm = answered(engine, PROMPT, max_tokens=1, temperature=0.7, seed=3)
    assert (tiny.sampling.greedy, warm.sampling.greedy) == (True, False)
    assert tiny.branches[0].completion_token_ids == by_hand(PROMPT, 0, 6)


def search_by_hand(prompt: list[int], search: BeamSearch) -> list[Hypothesis]:
    blocks = list(range(RUNNER.num_blocks[0]))
    while not search.done:
        top = []
        for beam in search.beams:
            tokens = [*prompt, *beam.tokens]
            batch = make_batch(
                [(tokens, 0)], [[blocks]], [len(tokens) - 1], [Asked(Want.TOP_K)],
                top_k=search.num_candidates,
            )  # fmt: skip
            out = RUNNER.run(batch)
            lse = float(out.log_sum_exp[0])
            values = [v - lse for v in out.top_logits[0].tolist()]
            top.append(list(zip(out.top_ids[0].tolist(), values, strict=True)))
        search.advance(top)
    return search.hypotheses()


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(("width", "n", "penalty"), [(1, 1, 1.0), (3, 2, 0.5), (4, 4, 1.5)])
def test_beams_are_those_of_a_search_that_shares_nothing(
    width: int, n: int, penalty: float, early_stopping: bool
) -> None:
    ends = range(0, 800, 20)
    rules: dict[str, Any] = {"length_penalty": penalty, "early_stopping": early_stopping}
    engine = tiny_engine(MODEL, POOL, num_blocks=12, block_size=16, max_rows=32)
    request = answered(
        engine, PROMPT, beam_width=width, n=n, max_tokens=9, stop_token_ids=ends, **rules
    )
    search = BeamSearch(width, max_tokens=9, end_tokens=frozenset(ends), num_outputs=n, **rules)
    want = search_by_hand(PROMPT, search)
    assert len(want) == n
    got = request.branches
    assert [tuple(s.completion_token_ids) for s in got] == [h.tokens for h in want]
    assert [s.cumulative_logprob for s in got] == [h.logprob for h in want]
    assert [s.finish_reason for s in got] == [h.finish_reason for h in want]


def test_prompt_logprobs_are_the_log_softmax_of_every_row() -> None:
    engine = tiny_engine(MODEL, POOL, max_rows=32)
    answered(engine, PROMPT, max_tokens=1)  # the cache knows the prompt, which must not matter
    request = answered(engine, PROMPT, max_tokens=2, prompt_logprobs=2, logprobs=0)
    rows = all_logits(RUNNER, [*PROMPT, request.branches[0].tokens[37]]).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    assert request.prompt_logprobs is not None
    first, *others = request.prompt_logprobs
    assert first is None
    assert len(others) == 36
    for row, given in zip(logs, others, strict=False):
        assert given is not None
        assert given.logprob == pytest.approx(row[given.token_id], abs=1e-5)
        best = np.argsort(-row, kind="stable")[:2]
        assert [t for t, _ in given.top] == best.tolist()
        assert [v for _, v in given.top] == pytest.approx(row[best].tolist(), abs=1e-5)
    assert [g.token_id for g in others if g is not None] == PROMPT[1:]
    drawn = request.branches[0].logprobs
    assert [d.logprob for d in drawn] == pytest.approx(
        [logs[36 + i][d.token_id] for i, d in enumerate(drawn)], abs=1e-5
    )
    assert request.cache is not None
    assert (request.cache.matched_tokens, request.cache.reason) == (0, CacheReason.NEEDS_ALL_ROWS)


def test_without_a_cache_prompt_logprobs_are_the_same() -> None:
    """More rows than a chunk of logits has: without a cache a prompt is never cut."""
    prompt = [*TEXT, *TEXT, *TEXT[:30]]
    given = []
    for kv_cache in (False, True):
        engine = tiny_engine(MODEL, POOL, max_rows=256, kv_cache=kv_cache)
        request = add(engine, prompt, max_tokens=1, prompt_logprobs=0)
        while engine.has_unfinished:
            assert len(engine.records) < 2
            engine.step()
        given.append(request.prompt_logprobs)
    assert [g.token_id for g in given[0][1:] if g is not None] == prompt[1:]
    assert given[0] == given[1]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_prompt_logprobs_of_one_token_are_none_at_all(max_tokens: int) -> None:
    engine = tiny_engine(MODEL, POOL)
    request = answered(engine, PROMPT[:1], max_tokens=max_tokens, prompt_logprobs=3)
    assert request.prompt_logprobs == [None]


@pytest.mark.parametrize("options", [{}, {"kv_cache": False}, {"prefix_cache": False}])
def test_a_prompt_is_scored_without_an_answer_as_with_one(options: dict[str, Any]) -> None:
    """The prompt fills the pool to its last slot."""
    prompt = [*TEXT[:32], *TEXT[:32]]
    engine = tiny_engine(MODEL, POOL, num_blocks=4, block_size=16, max_rows=64, **options)
    drawn = answered(engine, prompt, max_tokens=1, prompt_logprobs=2)
    scored = answered(engine, prompt, max_tokens=0, prompt_logprobs=2)
    assert scored.prompt_logprobs == drawn.prompt_logprobs
    assert len(scored.prompt_logprobs or ()) == 64
    (answer,) = scored.branches
    assert (answer.completion_token_ids, answer.finish_reason) == ([], "length")
    assert [r.output_rows for r in engine.records] == [64, 63]  # nothing is drawn from the last


def test_answers_of_a_prompt_that_is_only_scored_are_empty() -> None:
    engine = tiny_engine(MODEL, POOL)
    request = answered(engine, PROMPT, max_tokens=0, prompt_logprobs=0, logprobs=1, n=3)
    found = [(s.index, s.completion_token_ids, s.finish_reason) for s in request.branches]
    assert found == [(index, [], "length") for index in range(3)]
    assert len(request.prompt_logprobs or ()) == 37


@pytest.mark.parametrize("how", [{}, {"beam_width": 1, "early_stopping": True}], ids=str)
def test_an_end_token_ends_an_answer_and_ignore_eos_does_not(how: dict[str, Any]) -> None:
    free = by_hand(PROMPT, 0, 6)
    cases: list[tuple[dict[str, Any], str, int]] = [
        ({}, "stop", 1 + free.index(free[3])),
        ({"ignore_eos": True}, "length", 6),
        ({"ignore_eos": True, "stop_token_ids": [free[0]]}, "stop", 1),
    ]
    for params, reason, length in cases:
        engine = tiny_engine(MODEL, POOL, eos_ids=[free[3]])
        (one,) = answered(engine, PROMPT, max_tokens=6, **how, **params).branches
        assert (one.finish_reason, one.completion_token_ids) == (reason, free[:length])


def test_searches_of_different_width_in_one_step_are_those_of_each_alone() -> None:
    together = tiny_engine(MODEL, POOL)
    both = {width: add(together, PROMPT, max_tokens=6, beam_width=width) for width in (1, 5)}
    run(together)
    for width, one in both.items():
        alone = answered(tiny_engine(MODEL, POOL), PROMPT, max_tokens=6, beam_width=width)
        assert [s.tokens for s in one.branches] == [s.tokens for s in alone.branches]


def test_beams_that_want_more_candidates_than_the_head_gives_are_refused() -> None:
    """A beam may lose every end token: 64 candidates are for 32 beams and 32 of these."""
    engine = tiny_engine(MODEL, POOL)
    with pytest.raises(UsageError, match="beam_width=32 with 33 end tokens needs the 65 likeliest"):
        add(engine, PROMPT, beam_width=32, stop_token_ids=range(33), max_tokens=1)
    assert not engine.has_unfinished
    request = answered(engine, PROMPT, beam_width=32, stop_token_ids=range(32), max_tokens=1)
    assert request.error is None


def test_without_max_tokens_an_answer_goes_on_to_the_end_of_the_context() -> None:
    """64 slots: the token drawn from the last one is the 65th."""
    engine = tiny_engine(MODEL, POOL, num_blocks=2)
    for asked in (None, 1000):  # nor does one that asks for more go beyond it
        request = answered(engine, PROMPT, max_tokens=asked)
        assert request.max_tokens == 64 - 37 + 1
        (one,) = request.branches
        assert (one.num_tokens, one.finish_reason) == (65, "length")


class _Looked(list[Branch]):
    """What another thread may look at: while it is sorted it would be empty."""

    def sort(self, **_: object) -> None:
        raise AssertionError("a list is empty while it is sorted")


def test_a_request_has_its_branches_whoever_looks_meanwhile() -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, PROMPT, n=2, max_tokens=4, temperature=1.0, ignore_eos=True)
    request.branches = _Looked(request.branches)
    run(engine)
    assert request.error is None
    assert [b.num_completion_tokens for b in request.branches] == [4, 4]
