"""PlainPool: what a BlockPool should say, told with lists, a dict and two counters.

`watch` makes every call of a real pool here too, after it; ids and results must be equal. Which
blocks are found no more when one is evicted is the index's to say, and of the orders of eviction
only "least recently freed" is known here: both are read off what the real pool did.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.groups import BlockId

_CALLS = ("allocate", "free", "hold", "cache", "recache", "uncache", "reclaim", "rebuild")


class PlainPool:
    def __init__(self, pool: BlockPool, clock: Callable[[], float], *, is_lru: bool) -> None:
        self.pool = pool
        self.clock = clock
        self.is_lru = is_lru
        self.blocks = [BlockId(b) for b in range(pool.num_blocks)]
        self.groups = range(len(pool.block_bytes))
        self.holders: Counter[BlockId] = Counter()
        self.cached: set[BlockId] = set()
        self.evictable: list[BlockId] = []  # least recently freed first
        self.kept: set[BlockId] = set()  # a holder freed it where others may go on
        # Empty ones by group, taken from the end: with memory, and without.
        self.warm: list[list[BlockId]] = [[] for _ in self.groups]
        self.cold = [[b for b in reversed(self.blocks) if pool.group(b) == g] for g in self.groups]
        self.since: dict[BlockId, float] = {}  # when free blocks with memory became free
        self.released: list[BlockId] = []  # by the call that runs, to make room for others
        self.num_evicted = 0
        # What the real pool did in the call that runs: it evicted a block, or another was uncached.
        self.done: deque[tuple[str, BlockId]] = deque()

    @property
    def bytes_held(self) -> int:
        return sum(self.size(b) for b in +self.holders)

    @property
    def bytes_with_memory(self) -> int:
        cold = {b for blocks in self.cold for b in blocks}
        return sum(self.size(b) for b in self.blocks if b not in cold)

    def size(self, block: BlockId) -> int:
        return self.pool.block_bytes[self.pool.group(block)]

    def allocate(self, counts: Sequence[int]) -> list[list[BlockId]] | None:
        self.released.clear()
        wanted = sum(counts[group] * self.pool.block_bytes[group] for group in self.groups)
        if wanted > self.pool.budget - self.bytes_held:
            return None
        return [[self.take(group) for _ in range(counts[group])] for group in self.groups]

    def take(self, group: int) -> BlockId:
        block: BlockId | None = None
        while block is None:
            room = self.pool.budget - self.bytes_with_memory
            if self.warm[group]:
                block = self.warm[group].pop()
            elif self.cold[group] and self.pool.block_bytes[group] <= room:
                block = self.cold[group].pop()
            elif any(self.warm):
                self.release(next(warm for warm in self.warm if warm).pop(0))
            else:
                spare = [b for b in self.evictable if b not in self.kept]
                first = self.evictable[0] if self.is_lru else self.done[0][1]
                gone = self.evict(spare[0] if spare else first)
                if self.pool.group(gone) == group:
                    block = gone
                else:
                    self.release(gone)
        self.since.pop(block, None)
        self.holders[block] = 1
        self.kept.discard(block)
        return block

    def release(self, block: BlockId) -> None:
        self.released.append(block)
        self.since.pop(block, None)
        self.cold[self.pool.group(block)].append(block)

    def free(self, blocks: Sequence[BlockId], *, spare: bool = False) -> None:
        for block in blocks:
            self.holders[block] -= 1
            if not spare:
                self.kept.add(block)
            assert self.holders[block] >= 0
            if self.holders[block] == 0:
                warm = self.warm[self.pool.group(block)]
                (self.evictable if block in self.cached else warm).append(block)
                self.since[block] = self.clock()

    def hold(self, blocks: Sequence[BlockId]) -> None:
        for block in blocks:
            if self.holders[block] == 0:
                self.evictable.remove(block)
                del self.since[block]
            self.holders[block] += 1

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        assert self.holders[block] > 0
        assert parent is None or self.holders[parent] > 0
        self.cached.add(block)

    def recache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        assert block in self.cached
        self.cache(block, parent, cost)

    def uncache(self, block: BlockId) -> None:
        self.cached.remove(block)
        if self.holders[block] == 0:
            self.evictable.remove(block)
            self.warm[self.pool.group(block)].append(block)
            self.since[block] = self.clock()

    def evict(self, block: BlockId) -> BlockId:
        assert self.done.popleft() == ("evict", block)
        self.evictable.remove(block)
        del self.since[block]
        while self.done and self.done[0][0] == "uncache":
            self.uncache(self.done.popleft()[1])
        self.cached.remove(block)
        self.num_evicted += 1
        return block

    def note_eviction(self, group: int, number: int) -> None:
        """The real pool evicts a block, by its number in its group."""
        self.done.append(("evict", self.id_of(group, number)))

    def id_of(self, group: int, number: int) -> BlockId:
        return BlockId(self.pool.first_ids[group] + number)

    def reclaim(self, *, empty_since: float, cached_since: float) -> list[BlockId]:
        reclaimed = []
        while self.evictable and self.since[self.evictable[0]] <= cached_since:
            reclaimed.append(self.evict(self.evictable[0]))
        for warm in self.warm:
            while warm and self.since[warm[0]] <= empty_since:
                del self.since[warm[0]]
                reclaimed.append(warm.pop(0))
        for block in reclaimed:
            self.cold[self.pool.group(block)].append(block)
        return reclaimed

    def rebuild(self, holders: Mapping[BlockId, int], cached: Sequence[Any]) -> None:
        cold = {b for blocks in self.cold for b in blocks}
        freed = {b: self.since[b] for b in self.evictable}
        now = self.clock()
        self.holders = Counter(holders)
        self.cached = {block for block, _, _ in cached}
        empty = [b for b in self.blocks if not self.holders[b] and b not in self.cached]
        for group in self.groups:
            mine = [b for b in empty if self.pool.group(b) == group]
            self.warm[group] = [b for b in mine if b not in cold]
            self.cold[group] = [b for b in mine if b in cold]
        self.since = {b: freed.get(b, now) for b, _, _ in reversed(cached) if not self.holders[b]}
        for block, parent, _ in cached:  # never after its parent
            if block in self.since and parent in self.since:
                self.since[block] = min(self.since[block], self.since[parent])
        self.evictable = sorted(self.since, key=lambda b: self.since[b])
        self.kept.update(b for b in self.evictable if b not in freed)
        self.since |= {b: now for warm in self.warm for b in warm}

    def check(self) -> None:
        """The real pool says the same, block by block, and its budget is kept."""
        pool = self.pool
        assert [pool.num_holders(b) for b in self.blocks] == [self.holders[b] for b in self.blocks]
        assert {b for b in self.blocks if pool.is_cached(b)} == self.cached
        assert pool.num_held == len(+self.holders)
        assert pool.num_evictable == len(self.evictable)
        assert pool.num_empty == sum(map(len, self.warm)) + sum(map(len, self.cold))
        assert pool.num_evicted == self.num_evicted
        assert pool.bytes_held == self.bytes_held
        assert pool.oldest_evictable == min((self.since[b] for b in self.evictable), default=None)
        warm = [self.since[b] for blocks in self.warm for b in blocks]
        assert pool.oldest_empty == min(warm, default=None)
        assert self.bytes_with_memory <= pool.budget
        assert set(pool.released) <= {b for blocks in self.cold for b in blocks}


def watch(plain: PlainPool, about_to_call: Callable[[], None]) -> None:
    """Make every call of the real pool on the plain one too. `about_to_call` may raise."""
    pool, inside = plain.pool, False  # an eviction uncaches others

    def watched(name: str) -> Callable[..., Any]:
        real, replay = getattr(pool, name), getattr(plain, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                plain.done.append((name, args[0]))
                return real(*args, **kwargs)
            about_to_call()
            args = tuple(list(a) if _once(a) else a for a in args)
            released = pool.released
            inside = True
            try:
                got = real(*args, **kwargs)
            finally:
                inside = False
            want = replay(*args, **kwargs)
            assert got == want, f"{name}{args}: {got}, expected {want}"
            assert not plain.done, f"{name}{args} did more: {plain.done}"
            if name == "allocate":
                taken = {block for group in got or () for block in group}
                expected = [b for b in [*released, *plain.released] if b not in taken]
                assert pool.released == expected
            return got

        return call

    for name in _CALLS:
        setattr(pool, name, watched(name))


def _once(value: Any) -> bool:
    """An iterator, which two cannot read."""
    return isinstance(value, Iterable) and not isinstance(value, Sequence | Mapping)
