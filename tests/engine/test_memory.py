"""How many KV blocks a budget gives, and which budgets there cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from octavo.config import EngineConfig
from octavo.engine import memory
from octavo.engine.memory import MemoryPlan, plan_memory
from octavo.errors import OutOfMemoryError
from octavo.model import llama
from tests.tiny import TINY

PROGRAM = llama.build(TINY)
BLOCK = 32 * 2 * (2 * 32 * 2) * 2  # tokens x layers x (kv_heads x dim of K and of V) x bf16


WEIGHTS = 100 * BLOCK


def plan(**options: object) -> MemoryPlan:
    config = EngineConfig.parse(options)
    return plan_memory(config, PROGRAM, model_context=1024, weight_bytes=WEIGHTS)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets what is available, in blocks; 1,000 to begin with."""

    def has(blocks: int) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda: blocks * BLOCK)

    has(1000)
    return has


def test_an_explicit_budget_is_whole_however_few_the_sequences() -> None:
    assert plan(kv_memory=10 * BLOCK + 1) == MemoryPlan(320, 10, BLOCK)
    assert plan(kv_memory=40 * BLOCK) == MemoryPlan(1024, 40, BLOCK)
    assert plan(kv_memory=40 * BLOCK, context=100) == MemoryPlan(100, 40, BLOCK)
    assert plan(kv_memory=40 * BLOCK, context=100, max_num_seqs=1) == MemoryPlan(100, 40, BLOCK)


def test_a_context_that_was_asked_for_is_never_clamped() -> None:
    assert plan(kv_memory=4 * BLOCK, context=128) == MemoryPlan(128, 4, BLOCK)
    needs = f"context of 129 tokens needs {5 * BLOCK:,} bytes .* is {4 * BLOCK:,}:"
    with pytest.raises(OutOfMemoryError, match=needs):
        plan(kv_memory=4 * BLOCK, context=129)
    takes = f"takes {BLOCK:,} bytes, the budget is {BLOCK - 1:,}:"
    with pytest.raises(OutOfMemoryError, match=takes):
        plan(kv_memory=BLOCK - 1)


def test_a_larger_budget_is_advised_only_where_there_may_be_one(
    machine: Callable[[int], None],
) -> None:
    machine(108)  # 8 beside the weights, and a budget of 4
    with pytest.raises(OutOfMemoryError, match=r": lower context or raise kv_memory$"):
        plan(context=8 * 32)
    with pytest.raises(OutOfMemoryError, match=r": lower context or free memory$"):
        plan(context=9 * 32)


def test_an_explicit_budget_beyond_what_the_weights_leave_is_refused_with_both_numbers() -> None:
    assert plan(kv_memory=900 * BLOCK) == MemoryPlan(1024, 900, BLOCK)
    with pytest.raises(OutOfMemoryError) as error:
        plan(kv_memory="100T")
    assert str(error.value) == (
        f"kv_memory asks for {100 * 2**40:,} bytes, and beside {WEIGHTS:,} bytes of weights this "
        f"process may take {900 * BLOCK:,}: lower kv_memory, free memory, or raise its limit"
    )
    with pytest.raises(OutOfMemoryError, match=f"may take {900 * BLOCK:,}:"):
        plan(kv_memory=900 * BLOCK + 1)


def test_without_a_budget_half_of_what_the_weights_leave_is_taken(
    machine: Callable[[int], None],
) -> None:
    assert plan() == MemoryPlan(1024, 450, BLOCK)
    machine(120)
    assert plan() == MemoryPlan(320, 10, BLOCK)


def test_without_a_budget_one_sequence_leaves_room_for_prefixes_of_others(
    machine: Callable[[int], None],
) -> None:
    machine(10**6)
    assert plan(max_num_seqs=1) == MemoryPlan(1024, 32 + 2**14, BLOCK)
    assert plan(max_num_seqs=1, context=32) == MemoryPlan(32, 1 + 2**14, BLOCK)
    assert plan(max_num_seqs=64) == MemoryPlan(1024, 64 * 32 + 2**14, BLOCK)


def test_weights_that_leave_nothing_are_refused_before_they_are_read(
    machine: Callable[[int], None],
) -> None:
    machine(100)
    with pytest.raises(OutOfMemoryError, match=f"weights take {WEIGHTS:,} .* take {WEIGHTS:,}:"):
        plan()
    with pytest.raises(OutOfMemoryError, match="the weights take"):
        plan(kv_memory=BLOCK)
