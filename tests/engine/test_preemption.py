"""When blocks run out: who gives them up, from where it goes on, and that the first one always
ends. Beams go on together or not at all."""

from __future__ import annotations

import pytest

from tests.engine.driven import Driven, text


@pytest.mark.parametrize(("count", "left"), [(2, 8), (3, 4)])
def test_last_come_first_out_and_only_what_was_evicted_is_computed_again(
    count: int, left: int
) -> None:
    """Three blocks for each. At their 13th token all but the last take a fourth, each the tail of
    what the last one has: of its 13 tokens 8 or 4 are left."""
    it = Driven(3 * count, max_rows=64)
    requests = [it.add(text(i, 8), max_tokens=9) for i in range(count)]
    assert it.step() == [(i, 0, 8) for i in range(count)]
    for at in (8, 9, 10, 11):
        assert it.step() == [(i, at, at + 1) for i in range(count)]
    plan = it.plan()
    assert (plan.num_preempted, len(it.requests.waiting)) == (1, 1)
    assert it.run(plan) == [(i, 12, 13) for i in range(count - 1)]
    assert (len(it.requests.running), requests[-1].branches[0].num_tokens) == (count - 1, 13)
    for at in (13, 14, 15):
        assert it.step() == [(i, at, at + 1) for i in range(count - 1)]
    assert [r.finished for r in requests] == [True] * (count - 1) + [False]
    assert it.step() == [(count - 1, left, 13)]
    assert requests[-1].branches[0].completion_token_ids == [7] * 6
    assert requests[-1].cache.matched_tokens == 0  # as it was when it first began
    it.run_all()
    assert [r.num_preemptions for r in requests] == [0] * (count - 1) + [1]
    assert [r.branches[0].completion_token_ids for r in requests] == [[7] * 9] * count


def test_priority_decides_who_came_last() -> None:
    it = Driven(6, max_rows=32)
    late = it.add(text(1, 8), max_tokens=9, priority=1)
    urgent = it.add(text(2, 8), max_tokens=9, priority=0)
    it.run_all()
    assert (late.num_preemptions > 0, urgent.num_preemptions) == (True, 0)


def test_all_answers_of_a_preempted_request_go_on_where_they_were() -> None:
    it = Driven(10, max_rows=32)
    it.add(text(1, 8), max_tokens=20)
    pair = it.add(text(2, 6), max_tokens=9, n=2)
    it.run_all()
    assert pair.num_preemptions > 0
    assert [s.completion_token_ids for s in pair.branches] == [[7] * 9, [8] * 9]


def test_beams_go_on_together() -> None:
    """Three beams are three rows. With two rows left in the step none of them runs; with room none
    is left out."""
    it = Driven(64, max_rows=4)
    it.add(text(1, 4), max_tokens=9)
    assert it.step() == [(0, 0, 4)]
    it.add(text(2, 3), max_tokens=9)
    assert it.step() == [(0, 4, 5), (1, 0, 3)]
    beams = it.add(text(3, 2), max_tokens=4, beam_width=3)
    assert it.step() == [(0, 5, 6), (1, 3, 4), (2, 0, 2)]
    for index in (1, 2):
        it.requests.fork(beams.branches[0], 0).tokens[-1] += index
    assert it.step() == [(0, 6, 7), (1, 4, 5)]
    it.engine.finish(it.requests.running[0], "abort")
    assert it.step() == [(1, 5, 6), (2, 2, 3), (2, 2, 3), (2, 2, 3)]
    it.requests.drop(beams.branches[2])
    assert it.step() == [(1, 6, 7), (2, 3, 4), (2, 3, 4)]


def test_three_answers_that_need_every_block_come_back_from_preemption() -> None:
    """Two blocks of the prompt are shared and each answer has two of its own: all eight. When they
    come back, the third block of an urgent request holds the prompt's last three tokens: each
    answer copies it, and while the copies wait to be made there is a ninth block. The last answer
    lets that step pass. It once gave up the blocks of all of them instead, for ever.
    """
    it = Driven(8, max_rows=64)
    it.add(text(1, 12), max_tokens=20, priority=-1)
    three = it.add(text(1, 11), n=3, max_tokens=5)
    it.steps(20)  # the urgent one grows to all eight blocks, and ends
    assert (three.num_preemptions, it.kv.room) == (1, 8)
    assert [s.num_tokens for s in three.branches] == [13, 13, 13]
    plan = it.plan()
    assert plan.num_preempted == 0
    assert len(plan.transfers) == 2
    assert it.run(plan) == [(1, 11, 13)] * 2
    assert it.step() == [(1, 13, 14), (1, 13, 14), (1, 11, 13)]  # in place
    it.steps(2)
    assert [s.completion_token_ids for s in three.branches] == [[7] * 5, [8] * 5, [9] * 5]


def test_the_one_that_came_first_always_ends() -> None:
    """Requests that fit only alone, all at once."""
    it = Driven(4, max_rows=8)
    requests = [it.add(text(i, 4 + i), max_tokens=13 - i) for i in range(6)]
    ends = []
    while it.engine.has_unfinished:
        it.step()
        ends += [r.id for r in requests if r.finished and r.id not in ends]
    assert ends == [0, 1, 2, 3, 4, 5]
