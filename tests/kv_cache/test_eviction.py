"""Least recently used: by the time of freeing, wherever a block was in between."""

from __future__ import annotations

import pytest

from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId


def test_blocks_leave_in_the_order_they_were_freed() -> None:
    order: EvictionOrder = LeastRecentlyUsed()
    for block in (3, 1, 2, 0):
        order.cache(BlockId(block), None, 1.0)
        order.add(BlockId(block))
    order.remove(BlockId(1))  # reused, then freed again: the most recent
    order.add(BlockId(1))
    assert list(order) == [3, 2, 0, 1]
    assert (len(order), BlockId(2) in order, BlockId(7) in order) == (4, True, False)
    assert [order.pop() for _ in range(4)] == [3, 2, 0, 1]
    assert len(order) == 0


def test_a_block_is_in_the_order_once() -> None:
    order = LeastRecentlyUsed()
    order.add(BlockId(0))
    with pytest.raises(AssertionError):
        order.add(BlockId(0))
    with pytest.raises(KeyError):
        order.remove(BlockId(1))
