"""How many KV blocks a budget gives, and which budgets there cannot be."""

from __future__ import annotations

import pytest

from octavo.config import EngineConfig
from octavo.errors import OutOfMemoryError
from octavo.kv_cache.cache import LayerGroup
from octavo.planning.memory import KVPages, plan_memory

BLOCK = 12288
PAGES = KVPages([LayerGroup(8192), LayerGroup(4096)], 32, 512)
WEIGHTS = 100 * BLOCK


def plan(blocks: int = 1000, **options: object) -> tuple[int, int]:
    """Context and blocks on a machine that has room for so many blocks, weights included."""
    found = plan_memory(
        EngineConfig.parse(options), PAGES, 1024, weight_bytes=WEIGHTS, available=blocks * BLOCK
    )
    return found.context, found.num_blocks


def test_an_explicit_budget_is_whole_however_few_the_sequences_and_no_context_is_clamped() -> None:
    assert plan(kv_memory=10 * BLOCK + 1) == (320, 10)
    assert plan(kv_memory=40 * BLOCK) == (1024, 40)
    assert plan(kv_memory=40 * BLOCK, context=100) == (100, 40)
    assert plan(kv_memory=40 * BLOCK, context=100, max_num_seqs=1) == (100, 40)
    assert plan(kv_memory=4 * BLOCK, context=128) == (128, 4)
    needs = f"context of 129 tokens needs {5 * BLOCK:,} bytes .* is {4 * BLOCK:,}:"
    with pytest.raises(OutOfMemoryError, match=needs):
        plan(kv_memory=4 * BLOCK, context=129)
    takes = f"takes {BLOCK:,} bytes, the budget is {BLOCK - 1:,}:"
    with pytest.raises(OutOfMemoryError, match=takes):
        plan(kv_memory=BLOCK - 1)


def test_a_larger_budget_is_advised_only_where_there_may_be_one() -> None:
    # 8 blocks beside the weights, and a budget of 4
    with pytest.raises(OutOfMemoryError, match=r": lower context or raise kv_memory$"):
        plan(108, context=8 * 32)
    with pytest.raises(OutOfMemoryError, match=r": lower context or free memory$"):
        plan(108, context=9 * 32)


def test_an_explicit_budget_beyond_what_the_weights_leave_is_refused_with_both_numbers() -> None:
    assert plan(kv_memory=900 * BLOCK) == (1024, 900)
    with pytest.raises(OutOfMemoryError) as error:
        plan(kv_memory="100T")
    assert str(error.value) == (
        f"kv_memory asks for {100 * 2**40:,} bytes, and beside {WEIGHTS:,} bytes of weights this "
        f"process may take {900 * BLOCK:,}: lower kv_memory, free memory, or raise its limit"
    )
    with pytest.raises(OutOfMemoryError, match=f"may take {900 * BLOCK:,}:"):
        plan(kv_memory=900 * BLOCK + 1)


def test_without_a_budget_half_of_what_the_weights_leave_is_taken() -> None:
    assert plan() == (1024, 450)
    assert plan(120) == (320, 10)
    # One sequence leaves room for prefixes of others.
    assert plan(10**6, max_num_seqs=1) == (1024, 32 + 2**14)
    assert plan(10**6, max_num_seqs=1, context=32) == (32, 1 + 2**14)
    assert plan(10**6, max_num_seqs=64) == (1024, 64 * 32 + 2**14)


def test_weights_that_leave_nothing_are_refused_before_they_are_read() -> None:
    with pytest.raises(OutOfMemoryError, match=f"weights take {WEIGHTS:,} .* take {WEIGHTS:,}:"):
        plan(100)
    with pytest.raises(OutOfMemoryError, match="the weights take"):
        plan(100, kv_memory=BLOCK)
