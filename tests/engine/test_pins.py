"""Pins: what is pinned is found whatever runs, and every request still comes to its end."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.engine.engine import Engine
from octavo.errors import OutOfMemoryError
from octavo.records import BlockEvent, BlockEventKind, Pin
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT, Busy
from tests.engine.driven import Driven, text
from tests.engine.tiny_engine import add, answered, engine_over, run
from tests.tiny import make_runner

OTHER = TEXT[::-1]
ALL = 2**40


def small(**options: Any) -> tuple[Engine, list[BlockEvent]]:
    """Eight blocks of 16; the context is four of them."""
    events: list[BlockEvent] = []
    runner = make_runner(MODEL, POOL, num_blocks=8, block_size=16, context=64, **options)
    engine = engine_over(
        runner, MODEL.program, num_blocks=8, block_size=16, context=64, step_ms=None,
        on_event=events.append, **options,
    )  # fmt: skip
    return engine, events


def matched(engine: Engine, tokens: list[int], salt: str = "") -> int:
    request = answered(engine, tokens, RequestOptions(cache_salt=salt), max_tokens=1)
    assert request.cache is not None
    return request.cache.matched_tokens


def test_what_is_pinned_is_found_after_any_others() -> None:
    engine, events = small()
    answered(engine, TEXT[:40], max_tokens=1)
    pin = engine.cache.pin(TEXT[:40], "", ALL)
    assert (pin.num_tokens, pin.why_not) == (32, None)
    pinned = {e.block for e in events if e.kind is BlockEventKind.CACHE and e.block < 2}
    events.clear()
    for i in range(9):
        add(engine, OTHER[i : i + 50], max_tokens=9, n=2, temperature=1.0, seed=i)
    run(engine)
    evicted = {e.block for e in events if e.kind is BlockEventKind.EVICT}
    assert evicted
    assert not evicted & pinned
    assert matched(engine, TEXT[:40]) == 32
    assert engine.cache.unpin(pin)
    assert not engine.cache.unpin(pin)
    engine.check_integrity()
    assert engine.counts()["kv_blocks_used"] == 0
    for i in range(9):
        add(engine, OTHER[i : i + 50], max_tokens=9, n=2, temperature=1.0, seed=i)
    run(engine)
    assert matched(engine, TEXT[:40]) == 0


def test_whole_blocks_that_are_there_are_pinned_and_no_others() -> None:
    engine, _ = small()
    assert engine.cache.pin(TEXT, "", ALL) == Pin(
        0, 0, "none of its whole blocks of 16 tokens is in the cache"
    )
    answered(engine, TEXT[:50], max_tokens=1)
    assert engine.cache.pin(TEXT[:15], "", ALL).num_tokens == 0
    assert engine.cache.pin(TEXT[:16], "", ALL).num_tokens == 16
    assert engine.cache.pin([*TEXT[:33], *OTHER[:20]], "", ALL).num_tokens == 32
    assert engine.cache.pin(TEXT, "", ALL).num_tokens == 48
    assert engine.cache.pin(TEXT[:50], "another", ALL).num_tokens == 0
    assert engine.counts()["kv_blocks_pinned"] == 3


def test_over_the_budget_nothing_is_pinned() -> None:
    engine, _ = small()
    block = engine.kv.block_bytes
    answered(engine, TEXT[:50], max_tokens=1)
    answered(engine, OTHER[:20], max_tokens=1)
    assert engine.cache.pin(TEXT[:48], "", 3 * block - 1).why_not == (
        "48 tokens more would be pinned than memory is set aside for"
    )
    assert engine.counts()["kv_blocks_pinned"] == 0
    assert engine.cache.pin(TEXT[:48], "", 3 * block).num_tokens == 48
    assert engine.cache.pin(TEXT[:32], "", 3 * block).num_tokens == 32  # the same blocks
    assert engine.cache.pin(OTHER[:16], "", 3 * block).num_tokens == 0
    assert engine.cache.pin(OTHER[:16], "", 4 * block).num_tokens == 16


def test_pins_leave_room_for_the_longest_request_that_may_come() -> None:
    """Four of eight blocks."""
    engine, _ = small()
    for tokens in (TEXT[:50], OTHER[:50]):
        answered(engine, tokens, max_tokens=1)
    assert engine.cache.pin(TEXT[:48], "", ALL).num_tokens == 48
    assert engine.cache.pin(OTHER[:48], "", ALL).num_tokens == 0
    assert engine.cache.pin(OTHER[:16], "", ALL).num_tokens == 16
    whole = answered(engine, [1] * 30, max_tokens=35, ignore_eos=True)
    assert len(whole.branches[0].tokens) == 65
    with pytest.raises(OutOfMemoryError, match=r"pool has 4 beside those that are pinned: lower n"):
        add(engine, [1] * 30, n=2, max_tokens=35, temperature=1.0)


def test_pins_leave_room_for_what_is_there_already() -> None:
    engine, _ = small()
    answered(engine, TEXT[:50], max_tokens=1)
    wide = add(engine, OTHER[:20], n=2, max_tokens=44, temperature=1.0, seed=3, ignore_eos=True)
    assert engine.cache.pin(TEXT[:32], "", ALL).num_tokens == 0  # it needs 7 blocks
    assert engine.cache.pin(TEXT[:16], "", ALL).num_tokens == 16
    run(engine)
    assert [len(b.tokens) for b in wide.branches] == [64, 64]


def test_where_every_block_may_be_needed_none_is_pinned() -> None:
    it = Driven(num_blocks=4)
    it.add(text(1, 8), 1)
    it.run_all()
    assert it.engine.cache.pin(text(1, 8), "", ALL).num_tokens == 0


def test_without_a_prefix_cache_nothing_is_pinned() -> None:
    engine, _ = small(prefix_cache=False)
    answered(engine, TEXT[:50], max_tokens=1)
    assert engine.cache.pin(TEXT[:48], "", ALL) == Pin(0, 0, "the prefix cache is off")


def test_clear_forgets_one_salt_or_all_but_not_what_runs() -> None:
    engine, _ = small()
    for salt in ("", "alice"):
        matched(engine, TEXT[:20], salt)
    pin = engine.cache.pin(TEXT[:16], "alice", ALL)
    running = add(engine, OTHER[:20], max_tokens=9, ignore_eos=True)
    engine.step()
    assert engine.cache.clear("alice") == 2
    assert not engine.cache.unpin(pin)
    engine.check_integrity()
    assert engine.cache.clear("alice") == engine.cache.clear("nobody") == 0
    assert engine.cache.clear(None) == 2
    engine.check_integrity()
    run(engine)
    assert len(running.branches[0].completion_token_ids) == 9
    assert matched(engine, TEXT[:20]) == 0
    assert matched(engine, OTHER[:20]) == 19
    assert engine.cache.clear(None) > 0
    counts = engine.counts()
    assert counts["kv_blocks_used"] == counts["kv_blocks_kept"] == 0


def test_a_view_tells_of_one_salt_what_saved_most() -> None:
    engine, _ = small()
    for _ in range(3):
        answered(engine, TEXT[:36], max_tokens=1)  # twice they find 32, and a part
    answered(engine, [*TEXT[:16], *OTHER[:20]], max_tokens=1)
    matched(engine, TEXT[:50], "alice")
    pin = engine.cache.pin(TEXT[:32], "", ALL)
    view = engine.cache.view("")
    assert [(p.token_ids, p.num_hits) for p in view.prefixes] == [
        (tuple(TEXT[:32]), 2),
        (tuple(TEXT[:16]), 3),
    ]
    assert view.pins == (pin,)
    assert len(engine.cache.view("", 1).prefixes) == 1
    assert (engine.cache.view("alice").prefixes, engine.cache.view("alice").pins) == ((), ())
    assert view.counts == engine.counts()
    assert view.waste == 0.0
    add(engine, OTHER[:20], max_tokens=9)
    engine.step()
    assert engine.cache.view("").waste == 12 / 64


@pytest.mark.parametrize("seed", range(3))
def test_pins_and_clears_change_no_answer(seed: int) -> None:
    busy = Busy(seed, num_blocks=14, context=96)
    pins: list[Pin] = []
    num_pinned = 0
    for _ in range(250):
        busy.fill()
        busy.engine.step()
        chance = busy.random.random()
        if chance < 0.3:
            pins.append(busy.engine.cache.pin(TEXT[: busy.random.randrange(60)], "", ALL))
            num_pinned += pins[-1].num_tokens > 0
        elif chance < 0.45 and pins:
            busy.engine.cache.unpin(pins.pop(busy.random.randrange(len(pins))))
        elif chance < 0.5:
            busy.engine.cache.clear(None)
        busy.check(may_hurt=0)
    busy.engine.cache.clear(None)
    busy.drain()
    assert num_pinned > 5
    assert busy.num_right > 20
