"""Requests that share a prefix: what is computed once, who waits for whom and until when. Counts of
computed rows are exact."""

from __future__ import annotations

import pytest

from tests.engine.driven import Driven, text


def test_requests_offered_at_once_compute_their_common_prefix_once() -> None:
    """32 questions of 3 tokens after the same 20. Alone they would take 32 * 23 rows and a decode
    each; together 20 rows for all, then 3 and a decode for each."""
    it = Driven(128, max_rows=64, max_num_seqs=64)
    for i in range(32):
        it.add([*text(1, 20), *text(2 + i, 3)], max_tokens=2)
    assert it.step() == [(0, 0, 23)]
    assert it.kv.counts().blocks_used == 6
    second = it.step()
    assert second[:3] == [(0, 23, 24), (1, 20, 23), (2, 20, 23)]
    it.run_all()
    assert it.computed == 20 + 32 * (3 + 1)


@pytest.mark.parametrize(("max_rows", "again"), [(4, 1), (8, 0), (12, 0)])
def test_the_prefix_is_computed_once_in_chunks_of_any_size(max_rows: int, again: int) -> None:
    """Five whole blocks and one token. Nobody waits for a part of a block: with chunks of four the
    second request has a row in the step that computes the first one's token 20, and computes its
    own.
    """
    it = Driven(128, max_rows=max_rows)
    for i in range(8):
        it.add([*text(1, 21), *text(2 + i, 2)], max_tokens=1)
    it.run_all()
    assert it.computed == 21 + 8 * 2 + again


def test_nothing_is_shared_without_the_prefix_cache_or_under_other_salts() -> None:
    apart = Driven(128, max_rows=64, prefix_cache=False)
    salted = Driven(128, max_rows=64)
    for i in range(4):
        apart.add(text(1, 20), max_tokens=1)
        salted.add(text(1, 20), max_tokens=1, salt=f"tenant {i}")
    for it in (apart, salted):
        assert it.step() == [(0, 0, 20), (1, 0, 20), (2, 0, 20), (3, 0, 4)]  # and nobody waits
        it.run_all()
        assert it.computed == 4 * 20
    assert apart.kv.counts().blocks_cached == 0  # what can never be found is not cached
    assert salted.kv.counts().blocks_cached == 4 * 5


def test_a_request_waits_only_for_whole_blocks_that_it_shares() -> None:
    it = Driven(64, max_rows=8)
    it.add(text(1, 24))
    assert it.step() == [(0, 0, 8)]
    it.add([*text(1, 10), 5], max_tokens=1)  # two whole blocks, which are there; no third
    it.add([*text(1, 13), 5], max_tokens=1)  # a third, which is being computed
    assert it.step() == [(0, 8, 16)]
    assert it.step() == [(0, 16, 24)]
    assert it.step() == [(0, 24, 25), (1, 10, 11), (2, 13, 14)]


def test_of_equal_prompts_the_part_of_a_block_at_their_end_is_not_waited_for() -> None:
    it = Driven(64, max_rows=8)
    for _ in range(2):
        it.add(text(1, 10), max_tokens=1)
    assert it.step() == [(0, 0, 8)]
    assert it.step() == [(0, 8, 10), (1, 8, 10)]


def test_equal_blocks_after_unequal_ones_are_not_waited_for() -> None:
    it = Driven(64, max_rows=32)
    it.add(text(1, 4), max_tokens=1)
    it.run_all()
    it.add([*text(2, 4), *text(3, 9)], max_tokens=1)
    it.add([*text(1, 4), *text(3, 9)], max_tokens=1)
    assert it.step() == [(1, 0, 13), (2, 4, 13)]


def test_what_is_there_is_not_waited_for_again() -> None:
    """The second request wants log-probabilities of its prompt and computes what is known."""
    it = Driven(64, max_rows=12)
    it.add(text(1, 16), max_tokens=1)
    it.run_all()
    it.add(text(1, 20), max_tokens=1, prompt_logprobs=0)
    it.add([*text(1, 16), 5], max_tokens=1)
    assert it.step() == [(1, 0, 12)]
    assert it.step() == [(1, 12, 20), (2, 16, 17)]


def test_those_behind_a_waiting_request_do_not_wait_for_it() -> None:
    it = Driven(64, max_rows=12)
    it.add(text(1, 16))
    it.add([*text(1, 16), 5], max_tokens=1)
    it.add(text(2, 3), max_tokens=1)
    assert it.step() == [(0, 0, 12)]
    assert it.step() == [(0, 12, 16), (2, 0, 3)]
    assert it.step() == [(0, 16, 17), (1, 16, 17)]


def test_when_its_producer_is_cancelled_the_next_one_takes_over() -> None:
    """Two blocks of the producer's are there to be found; the second request computes the rest, and
    the third waits for it now."""
    it = Driven(64, max_rows=8)
    producer = it.add(text(1, 30))
    for i in (2, 3):
        it.add([*text(1, 28), i], max_tokens=1)
    assert it.step() == [(0, 0, 8)]
    assert it.step() == [(0, 8, 16)]
    it.engine.finish(producer, "abort")
    it.engine.check_integrity()
    assert it.step() == [(1, 16, 24)]
    assert it.step() == [(1, 24, 29)]
    assert it.step() == [(2, 28, 29)]


def test_when_its_producer_is_preempted_the_waiting_request_does_not_wait_for_ever() -> None:
    """The producer gives its blocks to one that came before it. Both then wait for room; the
    producer, which came first, is admitted first and is the producer again."""
    it = Driven(7, max_rows=8)
    it.add(text(9, 8), max_tokens=14)  # grows to six blocks
    assert it.step() == [(0, 0, 8)]
    it.add(text(1, 12), max_tokens=2)
    it.add([*text(1, 12), 5], max_tokens=2)
    assert it.step() == [(0, 8, 9), (1, 0, 7)]
    assert it.step() == [(0, 9, 10), (1, 7, 12)]
    assert it.run_all() < 30
    assert it.kv.counts().blocks_used == 0


def test_a_producer_and_its_waiter_may_both_come_back_from_preemption() -> None:
    it = Driven(6, max_rows=16)
    big = it.add(text(9, 4), max_tokens=20)
    producer = it.add(text(1, 8), max_tokens=8)
    waiter = it.add([*text(1, 8), 5], max_tokens=4)
    it.run_all()
    assert all(r.finished for r in (big, producer, waiter))
    assert producer.num_preemptions + waiter.num_preemptions > 0
    assert [r.branches[0].num_completion_tokens for r in (big, producer, waiter)] == [20, 8, 4]


def test_answers_of_one_request_share_their_prompt() -> None:
    """Three answers: the prompt is computed once, its whole blocks are held once, and the partial
    one is copied by two of the three."""
    it = Driven(32, max_rows=32)
    it.add(text(1, 10), n=3, max_tokens=3)
    assert it.step() == [(0, 0, 10)]
    assert it.kv.counts().blocks_used == 3
    plan = it.plan()
    assert len(plan.transfers) == 2
    assert it.run(plan) == [(0, 10, 11)] * 3
    assert it.kv.counts().blocks_used == 2 + 3
    it.run_all()
    assert it.computed == 10 + 3 * 2


def test_the_next_turn_finds_prompt_and_answer() -> None:
    it = Driven(32, max_rows=32)
    first = it.add(text(1, 10), max_tokens=5)
    it.run_all()
    history = first.branches[0].tokens
    it.computed = 0
    it.add([*history, *text(2, 3)], max_tokens=1)
    # The last token of an answer is drawn, and never computed.
    assert it.step() == [(1, 14, 18)]


def test_a_prompt_found_whole_runs_its_last_token_and_writes_nothing() -> None:
    it = Driven(32, max_rows=32)
    it.add(text(1, 8), max_tokens=1)
    it.run_all()
    it.add(text(1, 8), max_tokens=2)  # its block may be another's too
    plan = it.plan()
    assert (list(plan.spans.values()), plan.transfers) == ([(7, 8)], ())
    assert (plan.batch.positions.tolist(), plan.batch.write_starts.tolist()) == ([7], [8])
    it.run(plan)
    plan = it.plan()
    assert (plan.batch.positions.tolist(), plan.batch.write_starts.tolist()) == ([8], [8])


@pytest.mark.parametrize(("num_waiting", "runs"), [(254, True), (255, False)])
def test_a_step_looks_at_256_waiting_requests(num_waiting: int, runs: bool) -> None:
    """Without a bound, thousands that wait for one producer would be looked at in each step. A
    stranger behind them begins if it is among the first 256, else with them."""
    it = Driven(1200, max_rows=2048, max_num_seqs=300)
    it.add(text(1, 9), max_tokens=1)
    for i in range(num_waiting):
        it.add([*text(1, 8), 5000 + i], max_tokens=1)
    stranger = it.add(text(2, 3), max_tokens=1)
    first = it.step()
    assert first == [(0, 0, 9), (stranger.id, 0, 3)][: 1 + runs]
    second = it.step()
    assert [s for s in second if s[0] == stranger.id] == [(stranger.id, 0, 3)][: 1 - runs]
    assert len(first) + len(second) == 1 + min(num_waiting + 1, 256)
