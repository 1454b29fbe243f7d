"""PlainPool: what a BlockPool should say, told with a dict, a list and two counters.

`watch` lets every call of a real pool be made here first; ids and results must be equal. Of the
orders of eviction it knows "least recently freed" itself; another one is asked what goes next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from octavo.kv_cache.block_pool import BlockId, BlockPool
from octavo.kv_cache.eviction import LeastRecentlyUsed

CALLS = ("allocate", "free", "touch", "keep", "drop", "pin", "unpin", "reclaim", "rebuild")


class PlainPool:
    def __init__(self, pool: BlockPool, clock: Callable[[], float]) -> None:
        self.pool = pool
        self.clock = clock
        self.holders: Counter[BlockId] = Counter()  # pins among them
        self.pins: Counter[BlockId] = Counter()
        self.kept: set[BlockId] = set()
        self.evictable: list[BlockId] = []  # least recently freed first
        self.empty = [BlockId(b) for b in reversed(range(pool.num_blocks))]  # taken from the end
        self.since: dict[BlockId, float] = {}  # when free blocks with memory became free
        self.num_evicted = 0

    def allocate(self, count: int) -> list[BlockId] | None:
        if count > len(self.empty) + len(self.evictable):
            return None
        taken = [self.empty.pop() for _ in range(min(count, len(self.empty)))]
        taken += self.evict(self.next_to_go()[: count - len(taken)])
        for block in taken:
            self.since.pop(block, None)
            self.holders[block] = 1
        return taken

    def free(self, blocks: Sequence[BlockId]) -> None:
        for block in blocks:
            self.holders[block] -= 1
            assert self.holders[block] >= 0
            if self.holders[block] == 0:
                (self.evictable if block in self.kept else self.empty).append(block)
                self.since[block] = self.clock()

    def touch(self, blocks: Sequence[BlockId]) -> None:
        for block in blocks:
            if self.holders[block] == 0:
                self.evictable.remove(block)
                del self.since[block]
            self.holders[block] += 1

    def keep(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        assert self.holders[block] > 0
        assert parent is None or self.holders[parent] > 0
        self.kept.add(block)

    def drop(self, block: BlockId) -> None:
        self.kept.remove(block)
        if self.holders[block] == 0:
            self.evictable.remove(block)
            self.empty.append(block)
            self.since[block] = self.clock()

    def pin(self, blocks: Sequence[BlockId]) -> bool:
        if len(set(+self.pins) | set(blocks)) > self.pool.max_pinned:
            return False
        self.touch(blocks)
        self.pins.update(blocks)
        return True

    def unpin(self, blocks: Sequence[BlockId]) -> None:
        self.pins.subtract(blocks)
        self.free(blocks)

    def reclaim(self, *, empty_since: float, kept_since: float) -> list[BlockId]:
        cold = [b for b in self.empty if b not in self.since]
        warm = [b for b in self.empty if b in self.since]
        idle = [b for b in warm if self.since[b] <= empty_since]
        evicted = self.evict([b for b in self.evictable if self.since[b] <= kept_since])
        self.empty = [*cold, *evicted, *idle, *(b for b in warm if b not in idle)]
        for block in evicted + idle:
            del self.since[block]
        return evicted + idle

    def rebuild(self, holders: Mapping[BlockId, int], kept: Sequence[Any]) -> None:
        blocks = [BlockId(b) for b in range(self.pool.num_blocks)]
        cold = {b for b in self.empty if b not in self.since}
        since = {b: self.since[b] for b in self.evictable}
        self.holders = Counter(holders) + self.pins
        self.kept = {block for block, _, _ in kept}
        free = [b for b in blocks if not self.holders[b]]
        self.empty = [b for b in free if b not in self.kept and b in cold]
        warm = [b for b in free if b not in self.kept and b not in cold]
        self.empty += warm
        now = self.clock()
        self.since = {b: since.get(b, now) for b, _, _ in reversed(kept) if not self.holders[b]}
        for block, parent, _ in kept:  # never after its parent
            if block in self.since and parent in self.since:
                self.since[block] = min(self.since[block], self.since[parent])
        self.evictable = sorted(self.since, key=lambda b: self.since[b])
        self.since |= dict.fromkeys(warm, now)

    def evict(self, blocks: list[BlockId]) -> list[BlockId]:
        for block in blocks:
            self.evictable.remove(block)
            self.kept.remove(block)
            self.num_evicted += 1
        return blocks

    def next_to_go(self) -> list[BlockId]:
        order = self.pool._order
        return self.evictable if isinstance(order, LeastRecentlyUsed) else list(order)

    def check(self) -> None:
        """The real pool says the same, block by block."""
        pool, blocks = self.pool, [BlockId(b) for b in range(self.pool.num_blocks)]
        assert [pool.num_holders(b) for b in blocks] == [self.holders[b] for b in blocks]
        assert [pool.num_pins(b) for b in blocks] == [self.pins[b] for b in blocks]
        assert {b for b in blocks if pool.is_kept(b)} == self.kept
        assert list(pool._free_since) == self.evictable
        assert set(pool._order) == set(self.evictable)
        assert [*pool._cold, *(b for b, _ in pool._warm)] == self.empty
        assert pool.num_held == len(+self.holders)
        assert pool.num_evictable == len(self.evictable)
        assert pool.num_empty == len(self.empty)
        assert pool.num_pinned == len(+self.pins)
        assert pool.num_evicted == self.num_evicted


def watch(
    pool: BlockPool, clock: Callable[[], float], called: Callable[[str, Any], None]
) -> PlainPool:
    """Make every call of `pool` on the plain one too. `called(name, None)` before a call may raise;
    `called(name, result)` follows it."""
    plain = PlainPool(pool, clock)
    inside = False  # pin calls touch, unpin calls free

    def watched(name: str) -> Callable[..., Any]:
        real, replay = getattr(pool, name), getattr(plain, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return real(*args, **kwargs)
            called(name, None)
            args = tuple(list(a) if _once(a) else a for a in args)
            inside = True
            try:
                want = replay(*args, **kwargs)
                got = real(*args, **kwargs)
            finally:
                inside = False
            assert got == want, f"{name}{args}: {got}, expected {want}"
            called(name, got)
            return got

        return call

    for name in CALLS:
        setattr(pool, name, watched(name))
    return plain


def _once(value: Any) -> bool:
    """An iterator, which two cannot read."""
    return isinstance(value, Iterable) and not isinstance(value, Sequence | Mapping)
