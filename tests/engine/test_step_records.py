"""What is recorded of steps, counted by hand: rows, blocks, waste; which idle memory goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from octavo.batch import StepOutput
from octavo.engine.engine import Engine
from octavo.engine.step import StepPlan
from octavo.engine.update import Updater
from octavo.kv_cache.cache import Transfer
from octavo.records import CacheReason
from octavo.request import Request
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.interrupt import Line, call_raising
from tests.engine.tiny_engine import add, run, tiny_engine

OTHER = TEXT[::-1]


def test_the_record_of_each_step_counts_its_rows_and_blocks() -> None:
    """Two requests in blocks of 16: 20 tokens, and 8 with two answers."""
    engine = tiny_engine(MODEL, POOL, num_blocks=8, block_size=16, max_rows=24, step_ms=None)
    add(engine, TEXT[:20], max_tokens=3, temperature=0)
    add(engine, OTHER[:8], max_tokens=2, n=2, temperature=1.0, seed=1)
    run(engine)
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


def test_the_last_token_of_a_prompt_found_whole_is_the_only_one_not_cached() -> None:
    engine = tiny_engine(MODEL, POOL)
    for _ in range(2):
        answered(engine, TEXT[:40])
    assert [(r.kv_read_tokens, r.computed_tokens) for r in engine.records] == [(0, 40), (39, 1)]


def test_the_time_of_a_class_of_ops_is_that_of_all_its_ops() -> None:
    engine = tiny_engine(MODEL, POOL)
    names, real = engine.runner.op_names, engine.runner.forward

    def forward(plan: StepPlan) -> StepOutput:
        return replace(real(plan), op_ns=np.arange(1, 1 + len(names)))

    engine.runner.forward = forward  # type: ignore[method-assign]
    answered(engine, TEXT[:40])
    want: dict[str, int] = {}
    for ns, name in enumerate(names, start=1):
        want[name] = want.get(name, 0) + ns
    assert len(want) < len(names)
    assert dict(engine.records[0].op_ns) == want


def test_used_and_cached_blocks_are_of_the_same_moment() -> None:
    """A request of three steps in three blocks of four; its last block is taken in the second. What
    it held is cached when it has ended, and counted once, by the next step."""
    engine = tiny_engine(MODEL, POOL, num_blocks=4, block_size=16, step_ms=None)
    add(engine, TEXT[:32], max_tokens=3, temperature=0, ignore_eos=True)
    run(engine)
    add(engine, OTHER[:8], max_tokens=1, temperature=0)
    run(engine)
    seen = [(r.kv_blocks_used, r.kv_blocks_kept) for r in engine.records]
    assert seen == [(2, 0), (3, 0), (3, 0), (1, 3)]


def test_a_block_that_another_fills_has_no_slot_unfilled() -> None:
    """The second prompt ends inside the first one's second block, and copies it to go on."""
    engine = tiny_engine(MODEL, POOL, num_blocks=8, block_size=16, step_ms=None)
    add(engine, TEXT[:32], max_tokens=4, temperature=0, ignore_eos=True)
    engine.step()
    add(engine, TEXT[:20], max_tokens=2, temperature=0, ignore_eos=True)
    run(engine)
    seen = [(r.kv_blocks_used, r.kv_slots_unfilled) for r in engine.records]
    assert seen == [(2, 0), (3, 15), (4, 14 + 11), (3, 13)]


def test_steps_say_who_waits_and_who_was_preempted() -> None:
    engine = tiny_engine(MODEL, POOL, num_blocks=3, block_size=16, step_ms=None)
    add(engine, TEXT[:16], max_tokens=17, temperature=0, ignore_eos=True)
    add(engine, OTHER[:8], max_tokens=17, temperature=0, ignore_eos=True)
    run(engine)
    preempted = [r.step for r in engine.records if r.num_preempted]
    # The first takes its second block at 16 tokens; at the second's 17th there is none.
    assert preempted == [9]
    assert [r.num_waiting for r in engine.records if r.num_waiting] == [1] * 8
    assert sum(r.computed_tokens for r in engine.records) == 32 + 24


class Released:
    """Counts what a runner gives back to the system."""

    def __init__(self, engine: Engine) -> None:
        self.blocks: list[int] = []
        engine.runner.transfer = self.note  # type: ignore[method-assign]

    def note(self, transfers: Sequence[Transfer]) -> None:
        self.blocks += [block for kind, _, block, _ in transfers if kind == "release"]


def idle_engine(kv_idle: float) -> tuple[Engine, Released, list[float]]:
    now = [50.0]
    engine = tiny_engine(MODEL, POOL, kv_idle=kv_idle, clock=lambda: now[0])
    return engine, Released(engine), now


def answered(engine: Engine, tokens: list[int]) -> Request:
    request = add(engine, tokens, max_tokens=1, temperature=0)
    run(engine)
    return request


def test_idle_memory_goes_back_once_and_is_said_to_be_evicted() -> None:
    """40 tokens are two cached blocks: they idle for ten minutes."""
    engine, released, now = idle_engine(600)
    answered(engine, TEXT[:40])
    assert engine.reclaim() == 600
    now[0] += 599.5
    assert engine.reclaim() == 0.5
    assert released.blocks == []
    now[0] += 0.5
    assert engine.reclaim() is None
    assert sorted(released.blocks) == [0, 1]
    assert engine.reclaim() is None
    assert len(released.blocks) == 2
    record = answered(engine, TEXT[:40]).cache
    assert record is not None
    assert (record.matched_tokens, record.reason) == (0, CacheReason.EVICTED)


def test_blocks_that_hold_nothing_go_back_after_five_seconds() -> None:
    engine = tiny_engine(MODEL, POOL, clock=lambda: now[0], prefix_cache=False)
    now, released = [50.0], Released(engine)
    answered(engine, TEXT[:40])
    assert engine.reclaim() == 5
    now[0] += 5
    assert engine.reclaim() is None
    assert sorted(released.blocks) == [0, 1]


def test_with_no_idle_time_all_goes_back_at_once() -> None:
    engine, released, _ = idle_engine(0)
    answered(engine, TEXT[:40])
    assert engine.reclaim() is None
    assert sorted(released.blocks) == [0, 1]
    engine.check_integrity()


def test_the_system_gets_the_memory_and_the_blocks_read_as_zero() -> None:
    engine = tiny_engine(MODEL, POOL, kv_idle=0)
    pages = engine.runner.pages[0]
    answered(engine, TEXT[:40])
    assert pages.any()
    engine.reclaim()
    assert not pages.any()


def test_memory_that_is_kept_for_ever_is_never_due() -> None:
    engine, released, now = idle_engine(float("inf"))
    answered(engine, TEXT[:40])
    now[0] += 1e9
    assert engine.reclaim() == float("inf")
    assert released.blocks == []


def test_memory_that_holds_nothing_idles_no_longer_than_what_can_be_found() -> None:
    now = 0.0
    engine = tiny_engine(MODEL, POOL, clock=lambda: now, kv_idle=2, prefix_cache=False)
    add(engine, TEXT[:40], max_tokens=1)
    run(engine)
    assert engine.reclaim() == 2
    now = 2.0
    assert engine.reclaim() is None
