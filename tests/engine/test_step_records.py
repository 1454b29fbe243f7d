"""What is recorded of steps, counted by hand: rows, blocks, waste; which idle memory goes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.batch import StepOutput
from octavo.engine.engine import Engine
from octavo.engine.runner import Runner
from octavo.engine.step import StepPlan
from octavo.engine.update import Updater
from octavo.kv_cache.cache import Transfer
from octavo.records import CacheReason
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.interrupt import Line, call_raising
from tests.engine.tiny_engine import add, answered, tiny_engine

OTHER = TEXT[::-1]


def test_the_record_of_each_step_counts_its_rows_and_blocks() -> None:
    """Two requests in blocks of 16: 20 tokens, and 8 with two answers."""
    engine = tiny_engine(MODEL, POOL, num_blocks=8, block_size=16, max_rows=24, step_ms=None)
    add(engine, TEXT[:20], max_tokens=3)
    answered(engine, OTHER[:8], max_tokens=2, n=2, temperature=1.0, seed=1)
    seen = [
        (
            r.step, r.num_requests, r.computed_tokens, r.kv_read_tokens, r.output_rows,
            r.kv_blocks_used, r.kv_slots_unfilled, r.kv_blocks_copied, r.kv_blocks_total,
        )
        for r in engine.records
    ]  # fmt: skip
    assert seen == [
        (0, 2, 24, 0, 1, 3, 12 + 12, 0, 8),  # 20 tokens in two blocks, four in one
        (1, 2, 5, 20 + 4, 2, 3, 11 + 8, 0, 8),
        (2, 2, 3, 21 + 8 + 8, 3, 4, 10 + 7 + 7, 1, 8),
    ]
    assert [r.num_waiting for r in engine.records] == [0, 0, 0]
    assert [r.num_preempted for r in engine.records] == [0, 0, 0]
    assert [r.kv_waste(16) for r in engine.records] == [24 / 48, 19 / 48, 24 / 64]
    assert engine.counts()["kv_blocks_kept"] == 4


def test_no_two_steps_have_one_number_wherever_ctrl_c_comes() -> None:
    """At each line of what keeps the record, one after the other."""
    engine = tiny_engine(MODEL, POOL, step_ms=None)
    lines: set[Line] = set()

    def is_next(line: Line) -> bool:
        if line[0] is not Updater._note.__code__ or line in lines:
            return False
        lines.add(line)
        return True

    add(engine, TEXT[:3], max_tokens=200)
    while call_raising(engine.step, KeyboardInterrupt(), is_next):
        engine.step()
    assert len(lines) > 4
    assert engine.has_unfinished  # so every step had rows
    assert [r.step for r in engine.records] == list(range(len(engine.records)))


def test_the_time_of_a_class_of_ops_is_that_of_all_its_ops() -> None:
    engine = tiny_engine(MODEL, POOL)
    names, real = engine.runner.op_names, engine.runner.forward

    def forward(plan: StepPlan) -> StepOutput:
        return replace(real(plan), op_ns=np.arange(1, 1 + len(names), dtype=np.uint64))

    engine.runner.forward = forward  # type: ignore[method-assign]
    answered(engine, TEXT[:40], max_tokens=1)
    want: dict[str, int] = {}
    for ns, name in enumerate(names, start=1):
        want[name] = want.get(name, 0) + ns
    assert len(want) < len(names)
    assert dict(engine.records[0].op_ns) == want


def test_used_and_cached_blocks_are_of_the_same_moment() -> None:
    """A request of three steps in three blocks of four; its last block is taken in the second. What
    it held is cached when it has ended, and counted once, by the next step."""
    engine = tiny_engine(MODEL, POOL, num_blocks=4, block_size=16, step_ms=None)
    answered(engine, TEXT[:32], max_tokens=3, ignore_eos=True)
    answered(engine, OTHER[:8], max_tokens=1)
    seen = [(r.kv_blocks_used, r.kv_blocks_kept) for r in engine.records]
    assert seen == [(2, 0), (3, 0), (3, 0), (1, 3)]


def test_a_block_that_another_fills_has_no_slot_unfilled() -> None:
    """The second prompt ends inside the first one's second block, and copies it to go on."""
    engine = tiny_engine(MODEL, POOL, num_blocks=8, block_size=16, step_ms=None)
    add(engine, TEXT[:32], max_tokens=4, ignore_eos=True)
    engine.step()
    answered(engine, TEXT[:20], max_tokens=2, ignore_eos=True)
    seen = [(r.kv_blocks_used, r.kv_slots_unfilled) for r in engine.records]
    assert seen == [(2, 0), (3, 15), (4, 14 + 11), (3, 13)]


def test_steps_say_who_waits_and_who_was_preempted() -> None:
    engine = tiny_engine(MODEL, POOL, num_blocks=3, block_size=16, step_ms=None)
    add(engine, TEXT[:16], max_tokens=17, ignore_eos=True)
    answered(engine, OTHER[:8], max_tokens=17, ignore_eos=True)
    preempted = [r.step for r in engine.records if r.num_preempted]
    # The first takes its second block at 16 tokens; at the second's 17th there is none.
    assert preempted == [9]
    assert [r.num_waiting for r in engine.records if r.num_waiting] == [1] * 8
    assert sum(r.computed_tokens for r in engine.records) == 32 + 24


def idle_engine(**options: Any) -> tuple[Engine, list[int], list[float]]:
    """An engine, the blocks that it gave back to the system, and the time it reads."""
    now, released = [50.0], list[int]()
    engine = tiny_engine(MODEL, POOL, clock=lambda: now[0], **options)
    transfer = engine.runner.transfer

    def noted(transfers: Iterable[Transfer]) -> None:
        made = list(transfers)
        released.extend(block for kind, _, block, _ in made if kind == "release")
        transfer(made)

    engine.runner.transfer = noted  # type: ignore[method-assign]
    return engine, released, now


def test_idle_memory_goes_back_once_and_is_said_to_be_evicted() -> None:
    """40 tokens are two cached blocks: they idle for ten minutes."""
    engine, released, now = idle_engine(kv_idle=600)
    answered(engine, TEXT[:40], max_tokens=1)
    assert engine.reclaim() == 600
    now[0] += 599.5
    assert engine.reclaim() == 0.5
    assert released == []
    now[0] += 0.5
    assert engine.reclaim() is None
    assert sorted(released) == [0, 1]
    assert engine.reclaim() is None
    assert len(released) == 2
    record = answered(engine, TEXT[:40], max_tokens=1).cache
    assert (record.matched_tokens, record.reason) == (0, CacheReason.EVICTED)


@pytest.mark.parametrize(("options", "seconds"), [({}, 5), ({"kv_idle": 2}, 2)])
def test_blocks_that_hold_nothing_go_back_after_five_seconds_at_most(
    options: dict[str, Any], seconds: float
) -> None:
    """And idle no longer than what can be found."""
    engine, released, now = idle_engine(prefix_cache=False, **options)
    answered(engine, TEXT[:40], max_tokens=1)
    assert engine.reclaim() == seconds
    now[0] += seconds
    assert engine.reclaim() is None
    assert sorted(released) == [0, 1]


def test_with_no_idle_time_all_goes_back_at_once_and_reads_as_zero() -> None:
    engine, released, _ = idle_engine(kv_idle=0)
    assert isinstance(engine.runner, Runner)
    (pages,) = engine.runner.pages
    answered(engine, TEXT[:40], max_tokens=1)
    assert pages.any()
    assert engine.reclaim() is None
    assert sorted(released) == [0, 1]
    assert not pages.any()
    engine.check_integrity()


def test_memory_that_is_kept_for_ever_is_never_due() -> None:
    engine, released, now = idle_engine(kv_idle=float("inf"))
    answered(engine, TEXT[:40], max_tokens=1)
    now[0] += 1e9
    assert engine.reclaim() == float("inf")
    assert released == []
