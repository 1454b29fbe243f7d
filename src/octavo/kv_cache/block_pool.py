"""Block pool: which KV blocks are empty, evictable or held, and how many hold each, for all layer
groups under one budget of bytes.

Knows ids, bytes, holders and times. Knows nothing of tokens, requests, arrays or layers.

    state      holders  cached  leaves it by
    empty      0        no      allocate
    evictable  0        yes     hold (reused); allocate, reclaim (evicted); uncache
    held       >= 1     maybe   the last free: evictable if it is cached, else empty

Every block is in exactly one state. What is cached can be found: a block that is freed stays so
until its memory is needed, or is given back after idling. Callers free the tail of a sequence first
and hold every parent of a block they hold, so a block is evictable before its parent is. One order
of eviction has the blocks of all groups: if memory is needed, they are evicted in turn until there
is a block of the right group, or room for one. Before all of them go the spare ones: those that
every holder let go while its sequence went on.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from octavo.kv_cache.empty_blocks import EmptyBlocks
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId


class BlockPool:
    def __init__(
        self,
        block_bytes: Sequence[int],
        budget: int,
        *,
        order: EvictionOrder | None = None,
        forget: Callable[[BlockId], Iterable[BlockId]] = lambda block: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`block_bytes` of each group. `forget` is told of each evicted block, and says which
        others are found no more without it."""
        self.budget = budget
        self.block_bytes = tuple(block_bytes)
        self.bytes_held = 0
        self.num_evicted = 0  # since the start
        self.num_holds = 0  # calls of `hold`: between two of them no block gets one more holder
        self._order: EvictionOrder = LeastRecentlyUsed() if order is None else order
        self._forget = forget
        self._clock = clock
        self._empty = EmptyBlocks(block_bytes, budget)
        self._groups = self._empty.groups  # of every block
        self.first_ids = tuple(
            sum(budget // size for size in block_bytes[:g]) for g in range(len(block_bytes))
        )
        self.num_blocks = len(self._groups)
        self._holders = [0] * self.num_blocks
        self._is_cached = [False] * self.num_blocks
        self._is_kept = [False] * self.num_blocks  # a holder freed it where others may go on
        # Evictable ones, oldest first; and those of them that no order has.
        self._free_since: OrderedDict[BlockId, float] = OrderedDict()
        self.spare: OrderedDict[BlockId, None] = OrderedDict()

    @property
    def num_empty(self) -> int:
        return len(self._empty)

    @property
    def num_evictable(self) -> int:
        return len(self._free_since)

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_empty - self.num_evictable

    @property
    def bytes_in_memory(self) -> tuple[int, int, int]:
        """Return the bytes of held, of evictable and of those empty blocks that have memory."""
        empty = self._empty.bytes_warm
        return self.bytes_held, self._empty.bytes_in_memory - empty - self.bytes_held, empty

    @property
    def oldest_empty(self) -> float | None:
        """Return since when the empty block with memory has been so that was used longest ago."""
        return self._empty.oldest

    @property
    def oldest_evictable(self) -> float | None:
        """Return since when the cached block has been free that was used longest ago."""
        return next(iter(self._free_since.values()), None)

    @property
    def released(self) -> list[BlockId]:
        """The empty blocks that lose their memory to others, before those are written."""
        return list(self._empty.released)

    def end_release(self) -> None:
        """Note that the blocks to be released have lost their memory."""
        self._empty.released.clear()

    def group(self, block: BlockId) -> int:
        return self._groups[block]

    def number(self, block: BlockId) -> tuple[int, int]:
        """Return the block's group, and its number there."""
        group = self._groups[block]
        return group, block - self.first_ids[group]

    def num_holders(self, block: BlockId) -> int:
        """Count who holds the block: tables, and pins."""
        return self._holders[block]

    def holds(self) -> dict[BlockId, int]:
        """Return the number of holders of each block that has some."""
        return {BlockId(b): count for b, count in enumerate(self._holders) if count}

    def allocate(self, counts: Sequence[int]) -> list[list[BlockId]] | None:
        """Take so many blocks of each group, each with one holder. None if there is no room; then
        nothing is taken."""
        assert min(counts) >= 0
        sizes = zip(counts, self.block_bytes, strict=True)
        if sum(count * size for count, size in sizes) > self.budget - self.bytes_held:
            return None
        return [[self._take(group) for _ in range(count)] for group, count in enumerate(counts)]

    def free(self, blocks: Iterable[BlockId], *, spare: bool = False) -> None:
        """Take one holder from each, in the given order: the tail of a sequence comes first.
        `spare` ones are the first to be evicted, if no holder has freed them otherwise."""
        now = self._clock()
        for block in blocks:
            holders = self._holders[block] - 1
            assert holders >= 0, f"block {block} is freed by no holder of it"
            self._holders[block] = holders
            self._is_kept[block] |= not spare
            if holders:
                continue
            self.bytes_held -= self.block_bytes[self._groups[block]]
            if self._is_cached[block]:
                self._add_evictable(block, now)
            else:
                self._empty.add(block, now)

    def hold(self, blocks: Iterable[BlockId]) -> None:
        """Add one holder to each; each is held or cached."""
        self.num_holds += 1
        for block in blocks:
            if self._holders[block] == 0:
                assert self._is_cached[block], f"block {block} is empty: nothing to reuse"
                self._remove_evictable(block)
                self.bytes_held += self.block_bytes[self._groups[block]]
            self._holders[block] += 1

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """The held block can be found from now on; `cost` to compute it again, in any one unit."""
        assert self._holders[block] > 0
        assert not self._is_cached[block]
        assert parent is None or self._is_cached[parent]
        self._is_cached[block] = True
        self._order.cache(block, parent, cost)

    def recache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """The held block, which is cached, holds more than when it was: it counts as new."""
        assert self._holders[block] > 0
        assert self._is_cached[block]
        self._order.uncache(block)
        self._order.cache(block, parent, cost)

    def uncache(self, block: BlockId) -> None:
        """The block is found no more; if nobody holds it, it is empty."""
        assert self._is_cached[block]
        self._is_cached[block] = False
        if self._holders[block] == 0:
            self._remove_evictable(block)
            self._empty.add(block, self._clock())
        self._order.uncache(block)

    def is_cached(self, block: BlockId) -> bool:
        """Tell whether the tokens of the block can be found."""
        return self._is_cached[block]

    def reclaim(self, *, empty_since: float, cached_since: float) -> list[BlockId]:
        """Blocks whose memory may go back to the system, each once until it is used again: those
        that became empty at or before `empty_since`, and the cached ones that became free at or
        before `cached_since`, which are evicted."""
        reclaimed = []
        while self._free_since:
            block, since = next(iter(self._free_since.items()))
            if since > cached_since:
                break
            self._remove_evictable(block)
            self._evict(block)
            reclaimed.append(block)
        reclaimed += self._empty.pop_idle(empty_since)
        for block in reclaimed:
            self._empty.cool(block)
        return reclaimed

    def rebuild(
        self,
        holders: Mapping[BlockId, int],
        cached: Sequence[tuple[BlockId, BlockId | None, float]],
    ) -> None:
        """Set every block's state anew, after an exception in the middle of a change: who holds
        what, and what can be found: (block, its parent, cost), parents first."""
        freed, now = dict(self._free_since), self._clock()
        every = [BlockId(b) for b in range(self.num_blocks)]
        self._holders = [holders.get(b, 0) for b in every]
        self._is_cached = [False] * self.num_blocks
        self._free_since.clear()
        self.spare.clear()
        self._order.clear()
        for block, parent, cost in cached:
            self._is_cached[block] = True
            self._order.cache(block, parent, cost)
        self.bytes_held = self._count_bytes_held()
        self._empty.rebuild((b for b in every if not self._holders[b] | self._is_cached[b]), now)
        since = {b: freed.get(b, now) for b, _, _ in reversed(cached) if not self._holders[b]}
        for block, parent, _ in cached:
            if block in since and parent in since:  # what was being evicted has no time of its own
                since[block] = min(since[block], since[parent])
        for block in sorted(since, key=since.__getitem__):  # of equal age: leaves first
            self._is_kept[block] |= block not in freed
            self._add_evictable(block, since[block])

    def _add_evictable(self, block: BlockId, since: float) -> None:
        if self._is_kept[block]:
            self._order.add(block)
        else:
            self.spare[block] = None
        self._free_since[block] = since

    def _remove_evictable(self, block: BlockId) -> None:
        if block in self.spare:
            del self.spare[block]
        else:
            self._order.remove(block)
        del self._free_since[block]

    def _take(self, group: int) -> BlockId:
        while (block := self._empty.take(group)) is None:
            block = self.spare.popitem(last=False)[0] if self.spare else self._order.pop()
            del self._free_since[block]
            self._evict(block)
            if self._groups[block] == group:
                break
            self._empty.release(block)
        self._holders[block], self._is_kept[block] = 1, False
        self.bytes_held += self.block_bytes[group]
        return block

    def _evict(self, block: BlockId) -> None:
        """Forget a block that is evictable no more."""
        for other in self._forget(block):
            self.uncache(other)
        self._order.uncache(block)
        self._is_cached[block] = False
        self.num_evicted += 1

    def _count_bytes_held(self) -> int:
        pairs = zip(self._groups, self._holders, strict=True)
        return sum(self.block_bytes[group] for group, holders in pairs if holders > 0)

    def check_integrity(self) -> None:
        """Count every block; AssertionError if one is in no state, in two, or in a wrong one, or if
        the budget is not kept."""
        every = [BlockId(b) for b in range(self.num_blocks)]
        held = [b for b in every if self._holders[b] > 0]
        evictable = [*self._order, *self.spare]
        self._empty.check_integrity(held + evictable)
        assert len(held) == self.num_held, "held blocks"
        assert self.bytes_held == self._count_bytes_held(), "bytes held"
        assert len(self._order) + len(self.spare) == len(evictable) == self.num_evictable
        assert set(evictable) == self._free_since.keys(), "evictable blocks"
        assert all((b in self._order) == self._is_kept[b] for b in evictable), "spare blocks"
        cached = {b for b in every if self._is_cached[b]}
        assert cached.issuperset(evictable), "an evictable block is cached"
        assert cached <= {*held, *evictable}, "an empty block is not cached"
        assert min(self._holders, default=0) >= 0, "holders"
        times = list(self._free_since.values())
        assert times == sorted(times), "oldest first"
