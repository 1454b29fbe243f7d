"""The block pool, as stories with exact ids. `test_cache_machine` drives it at random."""

from __future__ import annotations

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId
from tests.kv_cache.taken_blocks import cached_chain, free_chain, ids, noting, take
from tests.kv_cache.tiny_tables import TinyTables


def counts(pool: BlockPool) -> tuple[int, int, int]:
    pool.check_integrity()
    assert pool.budget - pool.bytes_held == pool.num_empty + pool.num_evictable
    return pool.num_empty, pool.num_evictable, pool.num_held


def test_blocks_are_taken_given_back_and_taken_again() -> None:
    pool = BlockPool([1], 4)
    first = take(pool, 3)
    assert first == [0, 1, 2]
    assert pool.allocate([2]) is None  # too few: nothing is taken
    assert counts(pool) == (1, 0, 3)
    pool.free(ids(2, 1))
    assert take(pool, 3) == [1, 2, 3]  # the one freed last first, the one never used last
    assert take(pool, 0) == []
    assert counts(pool) == (0, 0, 4)


def test_too_few_blocks_evict_nothing() -> None:
    pool = BlockPool([1], 3)
    free_chain(pool, 2)
    assert pool.allocate([4]) is None
    assert counts(pool) == (1, 2, 0)
    assert pool.num_evicted == 0


def test_each_evicted_block_is_forgotten_once_and_may_be_kept_again() -> None:
    forgotten: list[BlockId] = []
    pool = BlockPool([1], 3, forget=noting(forgotten))
    free_chain(pool, 3)
    assert take(pool, 2) == forgotten == [2, 1]
    assert [pool.is_cached(b) for b in ids(0, 1, 2)] == [True, False, False]
    pool.cache(BlockId(2), BlockId(0), 1.0)
    pool.free(ids(2, 1))
    assert counts(pool) == (1, 2, 0)
    assert take(pool, 3) == [1, 0, 2]
    assert forgotten == [2, 1, 0, 2]


def test_a_dropped_block_is_empty_when_its_last_holder_goes() -> None:
    pool = BlockPool([1], 3)
    cached_chain(pool, 3)
    pool.free(ids(2, 1))
    pool.uncache(BlockId(2))  # nobody holds it
    assert counts(pool) == (1, 1, 1)
    pool.uncache(BlockId(0))  # still held
    assert counts(pool) == (1, 1, 1)
    pool.free(ids(0))
    assert counts(pool) == (2, 1, 0)
    assert pool.num_evicted == 0  # a drop is no eviction
    assert take(pool, 3) == [0, 2, 1]


def test_empty_blocks_are_reclaimed_once_until_they_are_used_again() -> None:
    it = TinyTables(4)
    pool = it.pool
    take(pool, 3)
    it.now = 10
    pool.free(ids(0))
    it.now = 20
    pool.free(ids(2, 1))
    assert pool.reclaim(empty_since=9, cached_since=99) == []
    assert pool.reclaim(empty_since=10, cached_since=99) == [0]
    assert pool.reclaim(empty_since=10, cached_since=99) == []
    # Blocks with memory are used first, then one without; block 3 never had any.
    assert take(pool, 3) == [1, 2, 0]
    pool.free(ids(1, 0))
    it.now = 30
    pool.free(ids(2))
    assert pool.reclaim(empty_since=25, cached_since=99) == [1, 0]
    assert pool.reclaim(empty_since=30, cached_since=99) == [2]
    assert counts(pool) == (4, 0, 0)


def test_findable_blocks_are_reclaimed_by_their_own_time_and_leaves_first() -> None:
    it = TinyTables(5)
    first, second = it.admit("0000 1111 2"), it.admit("0000 3333")
    it.now = 10
    it.end(first, "0000 1111 2")  # block 0 is still held
    it.now = 20
    it.drop(second)
    assert it.pool.reclaim(empty_since=99, cached_since=9) == []
    assert it.pool.reclaim(empty_since=0, cached_since=10) == [2, 1]  # evicted: given back now
    it.check()
    assert it.pool.num_evicted == 2
    assert it.found("0000 1111") == 4
    again = it.admit("0000 3333")  # used again: idle no more
    assert again.blocks[0] == [0, 3]
    it.now = 30
    assert it.pool.reclaim(empty_since=30, cached_since=30) == []
    it.drop(again)
    assert it.pool.reclaim(empty_since=30, cached_since=30) == [3, 0]
    assert it.pool.reclaim(empty_since=30, cached_since=30) == []
    it.check()


def test_a_dropped_block_idles_from_the_drop_on() -> None:
    it = TinyTables(3)
    it.pool.free([*cached_chain(it.pool, 1), *take(it.pool, 1)])
    it.now = 10
    it.pool.uncache(BlockId(0))
    assert it.pool.reclaim(empty_since=9, cached_since=9) == [1]
    assert it.pool.reclaim(empty_since=9, cached_since=9) == []
    assert it.pool.reclaim(empty_since=10, cached_since=0) == [0]
    assert take(it.pool, 3) == [0, 1, 2]  # the one given back last first, the untouched last


class Diary(LeastRecentlyUsed):
    """Notes what an order is told."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[str] = []

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        self.pages.append(f"cache {block} under {parent} for {cost}")

    def uncache(self, block: BlockId) -> None:
        assert block not in self
        self.pages.append(f"uncache {block}")

    def add(self, block: BlockId) -> None:
        super().add(block)
        self.pages.append(f"add {block}")

    def remove(self, block: BlockId) -> None:
        super().remove(block)
        self.pages.append(f"remove {block}")

    def pop(self) -> BlockId:
        block = super().pop()
        self.pages.append(f"pop {block}")
        return block


def test_an_order_is_told_of_each_change_once() -> None:
    order = Diary()
    pool = BlockPool([1], 3, order=order)

    def told() -> list[str]:
        pages, order.pages = order.pages, []
        pool.check_integrity()
        return pages

    blocks = take(pool, 3)
    pool.cache(blocks[0], None, 2.5)
    pool.cache(blocks[1], blocks[0], 3.5)
    assert told() == ["cache 0 under None for 2.5", "cache 1 under 0 for 3.5"]
    pool.hold(ids(0))  # held already
    pool.free(ids(2, 1, 0))  # block 2 is not findable, block 0 has another holder
    assert told() == ["add 1"]
    pool.hold(ids(1))
    pool.free(ids(1))
    assert told() == ["remove 1", "add 1"]
    pool.free(ids(0))
    assert take(pool, 2) == [2, 1]
    assert told() == ["add 0", "pop 1", "uncache 1"]
    pool.cache(blocks[1], blocks[0], 3.5)
    pool.uncache(blocks[1])  # held
    pool.uncache(blocks[0])  # not held
    assert told() == ["cache 1 under 0 for 3.5", "uncache 1", "remove 0", "uncache 0"]
    pool.cache(blocks[1], None, 1.0)
    pool.free(ids(1))
    assert pool.reclaim(empty_since=0, cached_since=float("inf")) == [1]
    assert told() == ["cache 1 under None for 1.0", "add 1", "remove 1", "uncache 1"]
