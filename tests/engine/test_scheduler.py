"""The scheduler's one rule, admission and release, told as stories with exact numbers."""

from __future__ import annotations

import pytest

from octavo.engine.scheduler import Scheduler, StepPlan
from octavo.errors import OutOfMemoryError
from octavo.kv_cache.block_pool import BlockPool
from octavo.request import Request
from octavo.sampling_params import SamplingParams


def make(num_blocks: int, **options: int | bool) -> tuple[Scheduler, BlockPool]:
    pool = BlockPool(num_blocks)
    defaults: dict[str, int | bool] = {"block_size": 4, "max_batch_tokens": 8, "max_num_seqs": 4}
    return Scheduler(pool, **(defaults | options)), pool  # type: ignore[arg-type]


def request(id: int, prompt: int, max_tokens: int) -> Request:
    return Request(
        id, SamplingParams(), tuple(range(prompt)), seed=0, temperature=0.0, max_tokens=max_tokens
    )


def spans(plan: StepPlan) -> list[tuple[int, int, int]]:
    return [(s.request.id, s.begin, s.end) for s in plan.scheduled]


def run(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    plan = scheduler.schedule()
    scheduler.update(plan, {s.request.id: 7 for s in plan.sampled})
    return spans(plan)


def test_a_prompt_is_computed_in_chunks_and_then_a_token_a_step() -> None:
    scheduler, pool = make(8)
    one = request(1, prompt=11, max_tokens=5)
    scheduler.add(one)
    assert run(scheduler) == [(1, 0, 8)]
    assert pool.num_held == 2
    assert run(scheduler) == [(1, 8, 11)]
    assert one.tokens[-1] == 7
    assert pool.num_held == 3
    assert run(scheduler) == [(1, 11, 12)]
    assert run(scheduler) == [(1, 12, 13)]
    assert pool.num_held == 4
    scheduler.finish(one, "length")
    assert pool.num_held == 0
    assert not scheduler.has_unfinished


def test_decodes_and_a_new_prompt_share_a_step() -> None:
    scheduler, _ = make(16)
    scheduler.add(request(1, prompt=3, max_tokens=9))
    assert run(scheduler) == [(1, 0, 3)]
    scheduler.add(request(2, prompt=20, max_tokens=2))
    assert run(scheduler) == [(1, 3, 4), (2, 0, 7)]
    assert run(scheduler) == [(1, 4, 5), (2, 7, 14)]


def test_a_request_waits_until_the_blocks_of_its_longest_answer_are_promised() -> None:
    scheduler, pool = make(5)
    first, second = request(1, prompt=4, max_tokens=9), request(2, prompt=8, max_tokens=1)
    scheduler.add(first)  # 4 + 9 - 1 = 12 tokens: 3 blocks
    scheduler.add(second)  # 8 tokens: 2 blocks
    assert run(scheduler) == [(1, 0, 4), (2, 0, 4)]
    third = request(3, prompt=1, max_tokens=1)
    scheduler.add(third)
    assert run(scheduler) == [(1, 4, 5), (2, 4, 8)]  # no block is left for the third
    scheduler.finish(second, "length")
    assert run(scheduler) == [(1, 5, 6), (3, 0, 1)]
    pool.check_integrity()


def test_a_request_that_can_never_fit_is_refused_with_both_numbers() -> None:
    scheduler, _ = make(2)
    with pytest.raises(OutOfMemoryError, match="may need 3 KV blocks of 4 tokens, the pool has 2"):
        scheduler.add(request(1, prompt=5, max_tokens=5))
    scheduler.add(request(2, prompt=5, max_tokens=4))  # 8 tokens: every block there is
    assert run(scheduler) == [(2, 0, 5)]


def test_a_waiting_request_can_be_finished() -> None:
    scheduler, pool = make(4, max_num_seqs=1)
    first, second = request(1, 1, 4), request(2, 1, 4)
    scheduler.add(first)
    scheduler.add(second)
    assert run(scheduler) == [(1, 0, 1)]  # one sequence at a time, though there are blocks for two
    scheduler.finish(second, "abort")
    scheduler.finish(first, "abort")
    assert not scheduler.has_unfinished
    assert pool.num_held == 0


def test_without_a_cache_the_whole_sequence_is_computed_for_every_token() -> None:
    scheduler, _ = make(16, keep_computed=False, max_batch_tokens=16)
    scheduler.add(request(1, prompt=6, max_tokens=9))
    assert [run(scheduler) for _ in range(3)] == [[(1, 0, 6)], [(1, 0, 7)], [(1, 0, 8)]]


def test_without_a_cache_a_sequence_is_never_cut_by_its_neighbours() -> None:
    scheduler, _ = make(16, keep_computed=False, max_batch_tokens=10)
    scheduler.add(request(1, prompt=6, max_tokens=2))
    scheduler.add(request(2, prompt=6, max_tokens=2))
    assert run(scheduler) == [(1, 0, 6)]
