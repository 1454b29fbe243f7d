"""The scheduler's one rule, admission and order, told as stories with exact numbers."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import OutOfMemoryError, UsageError
from tests.engine.driven import Driven, text


def test_a_prompt_is_computed_in_chunks_and_then_a_token_a_step() -> None:
    it = Driven(8)
    one = it.add(text(1, 11), max_tokens=5)
    assert it.step() == [(0, 0, 8)]
    assert it.kv.counts().blocks_used == 2
    assert it.step() == [(0, 8, 11)]
    assert one.branches[0].tokens[-1] == 7
    assert it.kv.counts().blocks_used == 3
    assert it.steps(2) == [[(0, 11, 12)], [(0, 12, 13)]]
    assert it.kv.counts().blocks_used == 4
    assert it.steps(2) == [[(0, 13, 14)], [(0, 14, 15)]]
    assert (one.finished, one.branches[0].num_completion_tokens) == (True, 5)
    assert (it.kv.counts().blocks_used, it.kv.counts().blocks_cached) == (0, 4)


def test_decodes_ride_along_with_a_new_prompt() -> None:
    it = Driven(16)
    it.add(text(1, 3))
    assert it.step() == [(0, 0, 3)]
    it.add(text(2, 20), max_tokens=2)
    assert it.step() == [(0, 3, 4), (1, 0, 7)]
    assert it.step() == [(0, 4, 5), (1, 7, 14)]
    assert it.step() == [(0, 5, 6), (1, 14, 20)]
    assert it.step() == [(0, 6, 7), (1, 20, 21)]


def test_a_lower_priority_number_runs_first_whenever_it_came() -> None:
    it = Driven(32, max_num_seqs=1)
    for priority in (5, 0, 5, -1):
        it.add(text(priority + 10, 4), max_tokens=1, priority=priority)
    assert [it.step()[0][0] for _ in range(4)] == [3, 1, 0, 2]


def test_among_running_prompts_too_priority_comes_first() -> None:
    it = Driven(32)
    it.add(text(1, 20), priority=1)
    assert it.step() == [(0, 0, 8)]
    it.add(text(2, 6), priority=0)
    assert it.step() == [(0, 8, 16)]  # it is admitted after those that run
    it.add(text(3, 3), priority=0)
    assert it.step() == [(0, 16, 20), (1, 0, 4)]
    assert it.step() == [(0, 20, 21), (1, 4, 6), (2, 0, 3)]


def test_longest_prefix_first_runs_what_is_known_before_what_came_first() -> None:
    """Offline the order of answers does not matter, and a hit is lost when it waits too long."""
    for schedule, order in (("longest-prefix", [3, 2, 1]), ("fcfs", [1, 2, 3])):
        it = Driven(32, max_num_seqs=1, schedule=schedule)
        it.add(text(1, 12), max_tokens=1)
        it.run_all()
        it.add(text(2, 12), max_tokens=1)
        it.add([*text(1, 6), 2], max_tokens=1)
        it.add([*text(1, 10), 3], max_tokens=1)
        ran = []
        while it.engine.has_unfinished:
            ran += [span[0] for span in it.step()]
        assert list(dict.fromkeys(ran)) == order


def test_longest_prefix_first_keeps_to_priorities() -> None:
    it = Driven(32, max_num_seqs=1, schedule="longest-prefix")
    it.add(text(1, 8), max_tokens=1)
    it.run_all()
    it.add(text(1, 8), max_tokens=1, priority=1)
    it.add(text(2, 8), max_tokens=1, priority=0)
    assert it.step() == [(2, 0, 8)]


def test_longest_prefix_first_keeps_to_the_order_of_arrival_among_equals() -> None:
    it = Driven(32, max_num_seqs=1, schedule="longest-prefix")
    for i in (1, 2, 3):
        it.add(text(i, 4), max_tokens=1)
    assert it.steps(3) == [[(0, 0, 4)], [(1, 0, 4)], [(2, 0, 4)]]


def test_a_request_is_admitted_when_its_blocks_can_be_had() -> None:
    """Six blocks: the first takes two, and a third for its next token but one. The second's eight
    tokens and one more take three: it fits. The third does not."""
    it = Driven(6)
    for i in (1, 2, 3):
        it.add(text(i, 8), max_tokens=4)
    assert it.step() == [(0, 0, 8)]
    assert it.step() == [(0, 8, 9), (1, 0, 7)]
    assert it.step() == [(0, 9, 10), (1, 7, 8)]
    assert it.step() == [(0, 10, 11), (1, 8, 9)]  # the first ends
    assert len(it.requests.waiting) == 1
    assert it.step() == [(1, 9, 10), (2, 0, 7)]


def test_what_a_running_request_will_need_next_is_kept_for_it() -> None:
    """Four blocks. The first fills two and its next token needs a third: of the two that are free,
    one is spoken for, and the second request, which needs two, waits."""
    it = Driven(4)
    first = it.add(text(1, 7), max_tokens=4)
    assert it.step() == [(0, 0, 7)]
    second = it.add(text(2, 4), max_tokens=3)
    assert it.steps(3) == [[(0, 7, 8)], [(0, 8, 9)], [(0, 9, 10)]]
    assert it.step() == [(1, 0, 4)]
    assert (first.num_preemptions, second.num_preemptions) == (0, 0)


def test_those_admitted_in_one_step_share_the_room() -> None:
    """Six blocks, of which each takes two now and a third for its next token but one."""
    it = Driven(6, max_rows=32)
    for i in (1, 2, 3):
        it.add(text(i, 8), max_tokens=4)
    assert it.step() == [(0, 0, 8), (1, 0, 8)]
    assert len(it.requests.waiting) == 1


def test_a_step_for_one_request_alone_admits_nobody() -> None:
    """The engine finds the one that raises so: company would hide it."""
    it = Driven(16, max_rows=32)
    one, _ = it.add(text(1, 4)), it.add(text(2, 4))
    assert it.step() == [(0, 0, 4), (1, 0, 4)]
    it.add(text(3, 4))
    assert it.run(it.plan(one)) == [(0, 4, 5)]
    assert it.step() == [(0, 5, 6), (1, 4, 5), (2, 0, 4)]


def test_a_short_request_behind_one_that_does_not_fit_waits_for_it() -> None:
    """Else a long one could wait for ever."""
    it = Driven(6)
    it.add(text(1, 8), max_tokens=3)
    it.step()
    it.add(text(2, 16), max_tokens=2)
    it.add(text(3, 1), max_tokens=1)
    assert it.step() == [(0, 8, 9)]
    assert it.step() == [(0, 9, 10)]
    assert it.step() == [(1, 0, 8)]


def test_every_answer_of_a_request_counts_as_a_branch() -> None:
    it = Driven(64, max_num_seqs=4, max_rows=32)
    for n in (3, 2, 1):
        it.add(text(n, 4), n=n, max_tokens=2)
    assert it.step() == [(0, 0, 4)]  # with the second there would be five
    assert it.step() == [(0, 4, 5)] * 3
    assert it.step() == [(1, 0, 4), (2, 0, 4)]


@pytest.mark.parametrize(
    ("length", "params", "options", "blocks"),
    [
        (5, {"max_tokens": 5}, {}, 3),  # the last token drawn is never computed: 9 slots
        (8, {"max_tokens": 1}, {}, 2),  # nor is an only one: 8 slots
        (8, {"max_tokens": 6, "n": 3}, {}, 8),  # 2 shared, and 2 for each
        (6, {"max_tokens": 3, "n": 2}, {}, 3),  # 1 shared, and a copy of the other for each
        (6, {"max_tokens": 8, "beam_width": 4}, {}, 13),  # 1 shared, and 3 for each
        (8, {"max_tokens": 6, "n": 3}, {"kv_cache": False}, 12),  # 13 slots for each: none shared
    ],
)
def test_what_can_never_fit_is_refused_with_both_numbers(
    length: int, params: dict[str, Any], options: dict[str, Any], blocks: int
) -> None:
    few = Driven(blocks - 1, **options)
    said = f"may need {blocks} KV blocks of 4 tokens, the pool"
    with pytest.raises(OutOfMemoryError, match=said):
        few.add(text(1, length), **params)
    assert not few.engine.has_unfinished
    enough = Driven(blocks, max_num_seqs=4, **options)
    enough.add(text(1, length), **params)
    assert enough.step() == [(0, 0, length)]


@pytest.mark.parametrize(
    ("length", "params", "helps"),
    [
        (8, {"max_tokens": 9, "n": 2}, "lower n or lower max_tokens or "),
        (8, {"max_tokens": 9, "beam_width": 2}, "lower beam_width or lower max_tokens or "),
        (3, {"max_tokens": 2, "n": 6}, "lower n or "),  # a block for each
        (8, {"max_tokens": 20}, "lower max_tokens or "),
        (24, {"max_tokens": 4}, ""),
    ],
)
def test_the_advice_of_a_refusal_is_what_would_help(
    length: int, params: dict[str, Any], helps: str
) -> None:
    with pytest.raises(OutOfMemoryError, match=f"the pool has 5: {helps}raise kv_memory$"):
        Driven(5).add(text(1, length), **params)


def test_more_answers_than_a_step_may_have_are_refused() -> None:
    it = Driven(64, max_num_seqs=2)
    for name, count in [("n", 3), ("beam_width", 4)]:
        said = (
            f"{name}={count}: a step runs at most 2 sequences: lower {name} or raise max_num_seqs"
        )
        params: dict[str, Any] = {name: count}
        with pytest.raises(UsageError, match=said):
            it.add(text(1, 4), **params)


def test_beams_that_no_step_has_the_rows_for_are_refused() -> None:
    """They go on together; answers that are drawn take turns."""
    it = Driven(64, max_rows=3)
    with pytest.raises(UsageError, match=r"beam_width=4: .* at most 3 tokens"):
        it.add(text(1, 4), beam_width=4)
    it.add(text(1, 2), n=4, max_tokens=2)
    assert it.steps(3) == [[(0, 0, 2)], [(0, 2, 3)] * 3, [(0, 2, 3)]]
    it.add(text(1, 4), beam_width=3)


def test_an_answer_that_ended_gives_its_seat_to_others() -> None:
    it = Driven(64, max_num_seqs=3)
    wide = it.add(text(1, 2), n=3)
    late = it.add(text(2, 2))
    assert it.steps(2) == [[(0, 0, 2)], [(0, 2, 3)] * 3]
    it.engine.finish_branch(wide.branches[1], "stop")
    assert it.step() == [(0, 3, 4), (0, 3, 4), (late.id, 0, 2)]


def test_without_a_cache_the_whole_sequence_is_computed_for_every_token() -> None:
    it = Driven(16, kv_cache=False, max_rows=16)
    it.add(text(1, 6))
    assert it.steps(3) == [[(0, 0, 6)], [(0, 0, 7)], [(0, 0, 8)]]
    it.add(text(1, 6))
    assert it.step() == [(0, 0, 9), (1, 0, 6)]  # and nothing is shared


def test_without_a_cache_a_sequence_as_long_as_a_step_runs() -> None:
    it = Driven(4, kv_cache=False, max_rows=6)
    it.add(text(1, 5), max_tokens=2)
    assert it.steps(2) == [[(0, 0, 5)], [(0, 0, 6)]]


def test_without_a_cache_a_sequence_is_never_cut_by_its_neighbours() -> None:
    it = Driven(16, kv_cache=False, max_rows=10)
    it.add(text(1, 6), max_tokens=2)
    it.add(text(2, 6), max_tokens=2)
    assert it.step() == [(0, 0, 6)]


def test_without_a_cache_beams_are_refused() -> None:
    it = Driven(64, kv_cache=False)
    with pytest.raises(UsageError, match="beam_width needs the KV cache"):
        it.add(text(1, 4), beam_width=2)
