"""A bug of a caller of the block pool, or damage inside of it, is noticed at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId
from tests.kv_cache.taken_blocks import cached_chain, ids, take


@pytest.mark.parametrize(
    "misuse",
    [
        lambda pool: pool.free(ids(2)),  # empty
        lambda pool: pool.free(ids(1, 1)),  # one holder
        lambda pool: pool.hold(ids(2)),  # empty: nothing to reuse
        lambda pool: pool.cache(BlockId(2), None, 1.0),  # held by nobody
        lambda pool: pool.cache(BlockId(0), None, 1.0),  # cached already
        lambda pool: pool.cache(BlockId(1), BlockId(2), 1.0),  # the parent is not cached
        lambda pool: pool.recache(BlockId(1), None, 1.0),  # not cached
        lambda pool: pool.uncache(BlockId(1)),  # not cached
        lambda pool: pool.allocate([-1]),
    ],
)
def test_misuse_is_a_bug(misuse: Callable[[BlockPool], object]) -> None:
    pool = BlockPool([1], 3)
    take(pool, 2)
    pool.cache(BlockId(0), None, 1.0)
    pool.check_integrity()
    with pytest.raises(AssertionError):
        misuse(pool)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda pool: pool._empty._cold[0].pop(), "once"),  # a lost block
        (lambda pool: pool._empty._warm[0].append((4, 0.0)), "once"),  # in two states
        (lambda pool: pool._empty._warm[0].append((5, 9.0)), "once"),  # twice in one
        (lambda pool: pool._holders.__setitem__(5, -1), "holders"),
        (lambda pool: pool._holders.__setitem__(2, 1), "once"),  # held and evictable
        (lambda pool: pool._order.remove(2), "once"),
        (lambda pool: pool._free_since.popitem(), "held blocks"),
        (lambda pool: pool._is_cached.__setitem__(2, False), "evictable block is cached"),
        (lambda pool: pool._is_cached.__setitem__(5, True), "empty block is not cached"),
        (lambda pool: pool._free_since.move_to_end(2), "oldest first"),
        (lambda pool: pool._empty._warm[0].reverse(), "oldest first"),
    ],
)
def test_damage_is_noticed(damage: Callable[[BlockPool], object], complaint: str) -> None:
    now = [0.0]
    pool = BlockPool([1], 8, order=LeastRecentlyUsed(), clock=lambda: now[0])
    blocks = cached_chain(pool, 4)
    pool.hold(blocks[:1])
    others = take(pool, 3)
    for block in [*others[:2], *reversed(blocks[1:])]:  # held: 0, 6; evictable: 3, 2, 1
        pool.free([block])
        now[0] += 1
    pool.check_integrity()
    damage(pool)
    with pytest.raises(AssertionError, match=complaint):
        pool.check_integrity()
