"""Cost-aware eviction: the rules one by one, then all against the formula and in a real pool."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.cost_aware import LIFETIME, CostAware
from octavo.kv_cache.eviction import EvictionOrder
from octavo.kv_cache.groups import BlockId
from tests.kv_cache.plain_cost_aware import PlainCostAware
from tests.kv_cache.taken_blocks import free_chain, noting

ELSEWHERE = BlockId(1000)  # added and removed again only so that time goes by


@pytest.fixture
def order() -> CostAware:
    return CostAware()


def keep(order: EvictionOrder, *blocks: tuple[int, int | None, float]) -> None:
    """Each with its parent and its cost."""
    for block, above, cost in blocks:
        order.cache(BlockId(block), None if above is None else BlockId(above), cost)


def chain(order: EvictionOrder, *blocks: int, cost: float = 16.0) -> None:
    """Keep the blocks, each the parent of the next, and add them tail first."""
    keep(order, *((b, above, cost) for above, b in zip((None, *blocks), blocks, strict=False)))
    add(order, *reversed(blocks))


def add(order: EvictionOrder, *blocks: int) -> None:
    for block in blocks:
        order.add(BlockId(block))


def reuse(order: EvictionOrder, *blocks: int) -> None:
    """Held from the head on and freed tail first."""
    for block in blocks:
        order.remove(BlockId(block))
    add(order, *reversed(blocks))


def wait(order: EvictionOrder, adds: int) -> None:
    if ELSEWHERE not in order:
        order.cache(ELSEWHERE, None, 2.0**40)  # dear: never the weakest in these stories
        order.add(ELSEWHERE)
        adds -= 1
    for _ in range(adds):
        reuse(order, ELSEWHERE)


def test_the_newest_unproven_block_goes_first(order: CostAware) -> None:
    for block in (4, 2, 5, 3):  # so few that none counts as recent
        chain(order, block)
    assert list(order) == [3, 5, 2, 4]
    assert (len(order), BlockId(5) in order, BlockId(9) in order) == (4, True, False)
    assert [order.pop() for _ in range(4)] == [3, 5, 2, 4]
    assert len(order) == 0


def test_the_last_fifteen_of_a_hundred_are_recent_and_wait(order: CostAware) -> None:
    for block in range(100):
        chain(order, block)
    assert order.pop() == 84
    reuse(order, *range(90, 100))  # ten of the fifteen recent ones are proven now
    assert order.pop() == 83  # 85 to 89 are recent still, and make no room for others


def test_fewer_are_recent_when_fewer_are_cached(order: CostAware) -> None:
    for block in range(100):
        chain(order, block)
    order.uncache(order.pop())
    assert [order.pop() for _ in range(2)] == [85, 83]  # 14 of 99: the oldest of the 15 has passed


def test_a_reuse_counts_as_four_times_the_cost_and_only_twice(order: CostAware) -> None:
    chain(order, 0, cost=16.0)
    chain(order, 1, cost=16.0 * 3.9)
    chain(order, 2, cost=16.0 * 4)
    chain(order, 3, cost=16.0 * 16)
    reuse(order, 0)
    assert list(order) == [1, 0, 2, 3]  # 0 has the value of 2 now and is newer
    reuse(order, 0)
    assert list(order) == [1, 2, 0, 3]
    for _ in range(5):
        reuse(order, 0)
    assert list(order) == [1, 2, 0, 3]


def test_a_block_goes_before_its_parent_whatever_their_values(order: CostAware) -> None:
    keep(order, (0, None, 1.0), (1, 0, 1024.0), (2, 1, 1024.0**2), (3, 0, 2.0))
    add(order, 3, 2, 1, 0)
    reuse(order, 0, 1, 2)
    assert list(order) == [3, 2, 1, 0]


def test_a_parent_freed_before_its_child_still_goes_after_it(order: CostAware) -> None:
    keep(order, (0, None, 16.0), (1, 0, 16.0))
    add(order, 0, 1)
    assert list(order) == [1, 0]
    order.remove(BlockId(1))
    order.uncache(BlockId(1))  # not evicted: no longer findable
    assert list(order) == [0]


def test_past_its_lifetime_the_oldest_goes_first_like_lru(order: CostAware) -> None:
    chain(order, 0)
    chain(order, 1)
    reuse(order, 0)  # the third add: 0 is proven, and younger than 1
    wait(order, LIFETIME - 2)
    assert next(iter(order)) == 1  # not past: 1 is the weakest
    wait(order, 1)
    chain(order, 2)  # the weakest, but young
    assert list(order) == [1, 0, 2, ELSEWHERE]


def test_the_end_of_a_lifetime_is_exact(order: CostAware) -> None:
    chain(order, 0, cost=64.0)
    wait(order, LIFETIME - 1)
    chain(order, 1)  # the add that ends the lifetime of 0
    assert list(order)[:2] == [0, 1]
    reuse(order, 0)
    assert list(order)[:2] == [1, 0]


def test_a_partly_filled_block_lives_for_the_square_of_its_part(order: CostAware) -> None:
    keep(order, (0, None, 32.0), (1, 0, 8.0))
    add(order, 1, 0)
    reuse(order, 0)  # so that 1 alone is the leaf, as it was
    chain(order, 2, cost=1.0)
    wait(order, LIFETIME // 16 - 3)
    assert next(iter(order)) == 2  # the weakest; 593 of 593.75 adds are over
    wait(order, 1)
    assert next(iter(order)) == 1


def test_a_dropped_block_leaves_no_history_to_the_next_of_its_id(order: CostAware) -> None:
    chain(order, 0)
    for _ in range(3):
        reuse(order, 0)
    order.remove(BlockId(0))
    order.uncache(BlockId(0))
    chain(order, 0)
    chain(order, 1)
    reuse(order, 1)
    assert list(order) == [0, 1]


def test_clear_forgets_every_block(order: CostAware) -> None:
    chain(order, 0, 1)
    order.clear()
    assert (len(order), list(order), BlockId(0) in order) == (0, [], False)
    chain(order, 1)
    assert order.pop() == 1


def test_a_wrong_call_is_an_error(order: CostAware) -> None:
    chain(order, 0, 1)
    with pytest.raises(AssertionError):
        add(order, 0)
    with pytest.raises(AssertionError):
        order.cache(BlockId(0), None, 1.0)
    with pytest.raises(AssertionError):
        order.cache(BlockId(2), None, 0.0)
    order.remove(BlockId(0))
    with pytest.raises(AssertionError):
        order.remove(BlockId(0))
    with pytest.raises(AssertionError, match="children go before their parent"):
        order.uncache(BlockId(0))


def test_stale_entries_do_not_pile_up(order: CostAware) -> None:
    for block in range(10):
        chain(order, block)
    for i in range(5000):
        reuse(order, i % 10)
    assert len(order._ends) <= 2 * 10 + 64 + 1
    assert len(order._weakest) <= 2 * 10 + 64 + 1
    assert len(list(order)) == 10


class Tree:
    """A random cache: a request holds a path of a tree from its root, evicts what is in its way,
    and frees the path tail first."""

    def __init__(self, orders: list[EvictionOrder], draw: random.Random) -> None:
        self.orders = orders
        self.draw = draw
        self.parent: dict[BlockId, BlockId | None] = {}
        self.unused = [BlockId(b) for b in range(200)]

    def request(self) -> None:
        path: list[BlockId] = []
        at: BlockId | None = None
        for _ in range(self.draw.randrange(6)):
            children = [b for b, parent in self.parent.items() if parent == at]
            if not children or self.draw.random() < 0.2:
                break
            at = self.draw.choice(children)
            path.append(at)
        for block in path:
            for order in self.orders:
                order.remove(block)
        while len(self.parent) > 60 and len(self.orders[0]):
            self.orders[0].uncache(self.evict())  # as the pool does; it was forgotten when popped
        for _ in range(self.draw.randrange(1, 5)):
            block = self.unused.pop(self.draw.randrange(len(self.unused)))
            cost = self.draw.choice([1.0, 3.0, 16.0, 500.0])
            for order in self.orders:
                order.cache(block, at, cost)
            self.parent[block] = at
            path.append(block)
            at = block
        for block in reversed(path):
            for order in self.orders:
                order.add(block)

    def evict(self) -> BlockId:
        first, *others = [order.pop() for order in self.orders]
        assert others == [first] * len(others)
        assert first not in self.parent.values(), "a leaf"
        del self.parent[first]
        self.unused.append(first)
        return first


@pytest.mark.parametrize("lifetime", [5, 60, 10**6])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_tree_is_evicted_by_the_formula(lifetime: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("octavo.kv_cache.cost_aware.LIFETIME", lifetime)
        patch.setattr("tests.kv_cache.plain_cost_aware.LIFETIME", lifetime)
        order, plain = CostAware(), PlainCostAware()
        tree = Tree([order, plain], random.Random(seed))  # type: ignore[list-item]
        for _ in range(40):
            tree.request()
            if tree.draw.random() < 0.2:
                foretold = list(order)
                assert sorted(foretold) == sorted(tree.parent)
                assert foretold[:3] == [tree.evict() for _ in range(min(3, len(foretold)))]
        while tree.parent:
            tree.evict()
        assert len(order) == 0


def test_a_pool_evicts_by_it() -> None:
    evicted: list[BlockId] = []
    pool = BlockPool([1], 6, order=CostAware(), forget=noting(evicted))
    first, second = (free_chain(pool, 3) for _ in range(2))
    assert (first, second) == ([0, 1, 2], [3, 4, 5])
    pool.check_integrity()
    pool.hold(first[:1])
    pool.free(first[:1])
    assert pool.allocate([5]) is not None
    # The newest go first, each after its child; the reused block is left.
    assert evicted == [5, 4, 3, 2, 1]
    assert pool.is_cached(BlockId(0))
    pool.check_integrity()
