"""Block pool: which KV blocks are empty, evictable or held, and how many hold each.

Knows ids, holders and times. Knows nothing of tokens, requests, arrays or layers.

    state      holders  findable  leaves it by
    empty      0        no        allocate
    evictable  0        yes       touch, pin (reused); allocate, reclaim (evicted); drop
    held       >= 1     maybe     the last free or unpin: evictable if findable, else empty

Every block is in exactly one state. A pin is a holder too. A freed block that is findable stays so
until its memory is needed, or is given back after idling. Callers free the tail of a sequence
first and hold every parent of a block they hold, so a block is evictable before its parent is.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from octavo.kv_cache.block_id import BlockId
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed

__all__ = ["BlockId", "BlockPool"]


def _forget_nothing(block: BlockId) -> None:
    """For a pool whose blocks are never findable."""


class BlockPool:
    def __init__(
        self,
        num_blocks: int,
        *,
        order: EvictionOrder | None = None,
        forget: Callable[[BlockId], None] = _forget_nothing,
        max_pinned: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`forget` is told of each evicted block; `max_pinned` distinct blocks may be pinned."""
        self.num_blocks = num_blocks
        self.num_evicted = 0  # since the start
        self._order: EvictionOrder = LeastRecentlyUsed() if order is None else order
        self._forget = forget
        self.max_pinned = max_pinned
        self._clock = clock
        self._holders = [0] * num_blocks
        self._is_kept = [False] * num_blocks
        self._pins: dict[BlockId, int] = {}
        # Empty blocks with memory and when they became empty, oldest first. Taken from the end: the
        # memory of the block freed last is the likeliest to be in a processor's cache still.
        self._warm: deque[tuple[BlockId, float]] = deque()
        self._cold = [BlockId(b) for b in reversed(range(num_blocks))]  # empty, without memory
        self._free_since: OrderedDict[BlockId, float] = (
            OrderedDict()
        )  # evictable ones, oldest first

    @property
    def num_empty(self) -> int:
        return len(self._warm) + len(self._cold)

    @property
    def num_evictable(self) -> int:
        return len(self._free_since)

    @property
    def num_free(self) -> int:
        return self.num_empty + self.num_evictable

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_pinned(self) -> int:
        return len(self._pins)

    @property
    def oldest_empty(self) -> float | None:
        """Since when the block has been empty that has memory and was used longest ago."""
        return self._warm[0][1] if self._warm else None

    @property
    def oldest_evictable(self) -> float | None:
        """Since when the block has been free that was used longest ago of the findable ones."""
        return next(iter(self._free_since.values()), None)

    def num_holders(self, block: BlockId) -> int:
        """Pins among them."""
        return self._holders[block]

    def num_pins(self, block: BlockId) -> int:
        return self._pins.get(block, 0)

    def allocate(self, count: int) -> list[BlockId] | None:
        """Take `count` blocks, each with one holder: empty ones first, then evicted ones. None if
        there are too few; then nothing is taken."""
        assert count >= 0
        if count > self.num_free:
            return None
        taken = []
        for _ in range(count):
            block = self._take()
            self._holders[block] = 1
            taken.append(block)
        return taken

    def free(self, blocks: Iterable[BlockId]) -> None:
        """One holder less of each, in the given order: the tail of a sequence comes first."""
        now = self._clock()
        for block in blocks:
            holders = self._holders[block] - 1
            assert holders >= self._pins.get(block, 0), f"block {block} is freed by no holder of it"
            self._holders[block] = holders
            if holders:
                continue
            if self._is_kept[block]:
                self._order.add(block)
                self._free_since[block] = now
            else:
                self._warm.append((block, now))

    def touch(self, blocks: Iterable[BlockId]) -> None:
        """One holder more of each; each is held or findable."""
        for block in blocks:
            if self._holders[block] == 0:
                assert self._is_kept[block], f"block {block} is empty: nothing to reuse"
                self._order.remove(block)
                del self._free_since[block]
            self._holders[block] += 1

    def keep(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """The held block is findable from now on; `cost` to compute it again, in any one unit."""
        assert self._holders[block] > 0
        assert not self._is_kept[block]
        assert parent is None or self._is_kept[parent]
        self._is_kept[block] = True
        self._order.keep(block, parent, cost)

    def renew(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """The held block, which is findable, holds more than when it was kept: it counts as new."""
        assert self._holders[block] > 0
        assert self._is_kept[block]
        self._order.drop(block)
        self._order.keep(block, parent, cost)

    def drop(self, block: BlockId) -> None:
        """The block is not findable any more; if nobody holds it, it is empty."""
        assert self._is_kept[block]
        self._is_kept[block] = False
        if self._holders[block] == 0:
            self._order.remove(block)
            del self._free_since[block]
            self._warm.append((block, self._clock()))
        self._order.drop(block)

    def is_kept(self, block: BlockId) -> bool:
        """Is it findable?"""
        return self._is_kept[block]

    def pin(self, blocks: Collection[BlockId]) -> bool:
        """Hold each until `unpin`. False if more blocks than the budget would be pinned; then
        nothing is changed."""
        if len(self._pins.keys() | set(blocks)) > self.max_pinned:
            return False
        self.touch(blocks)
        for block in blocks:
            self._pins[block] = self._pins.get(block, 0) + 1
        return True

    def unpin(self, blocks: Collection[BlockId]) -> None:
        """Give up one pin of each, in the given order: the tail of a sequence comes first."""
        for block in blocks:
            self._pins[block] -= 1  # KeyError: it is not pinned, a bug of ours
            if self._pins[block] == 0:
                del self._pins[block]
        self.free(blocks)

    def reclaim(self, *, empty_since: float, kept_since: float) -> list[BlockId]:
        """Blocks whose memory may go back to the system, each once until it is used again.

        Those that became empty at or before `empty_since`, and the findable ones that became free
        at or before `kept_since`: these are evicted.
        """
        reclaimed = []
        while self._free_since:
            block, since = next(iter(self._free_since.items()))
            if since > kept_since:
                break
            self._order.remove(block)
            self._evict(block)
            reclaimed.append(block)
        while self._warm and self._warm[0][1] <= empty_since:
            reclaimed.append(self._warm.popleft()[0])
        self._cold += reclaimed
        return reclaimed

    def rebuild(
        self, holders: Mapping[BlockId, int], kept: Sequence[tuple[BlockId, BlockId | None, float]]
    ) -> None:
        """Set every block's state anew, after an exception in the middle of a change: who holds
        what (pins apart), and what is findable: (block, its parent, cost), parents first."""
        freed, now = dict(self._free_since), self._clock()
        cold = set(self._cold)
        every = [BlockId(b) for b in range(self.num_blocks)]
        self._holders = [holders.get(b, 0) + self._pins.get(b, 0) for b in every]
        self._is_kept = [False] * self.num_blocks
        self._warm.clear()
        self._cold.clear()
        self._free_since.clear()
        self._order.clear()
        for block, parent, cost in kept:
            self._is_kept[block] = True
            self._order.keep(block, parent, cost)
        free = [b for b in every if not self._holders[b]]
        self._cold = [b for b in free if not self._is_kept[b] and b in cold]
        self._warm += ((b, now) for b in free if not self._is_kept[b] and b not in cold)
        since = {b: freed.get(b, now) for b, _, _ in reversed(kept) if not self._holders[b]}
        for block, parent, _ in kept:
            if block in since and parent in since:  # what was being evicted has no time of its own
                since[block] = min(since[block], since[parent])
        for block in sorted(since, key=since.__getitem__):  # of equal age: leaves first
            self._order.add(block)
            self._free_since[block] = since[block]

    def _take(self) -> BlockId:
        if self._warm:
            return self._warm.pop()[0]
        if self._cold:
            return self._cold.pop()
        block = self._order.pop()
        self._evict(block)
        return block

    def _evict(self, block: BlockId) -> None:
        """Forget a block that has left the order."""
        del self._free_since[block]
        self._forget(block)
        self._order.drop(block)
        self._is_kept[block] = False
        self.num_evicted += 1

    def check_integrity(self) -> None:
        """Count every block; AssertionError if one is in no state, in two, or in a wrong one."""
        every = [BlockId(b) for b in range(self.num_blocks)]
        held = [b for b in every if self._holders[b] > 0]
        evictable = list(self._order)
        empty = [b for b, _ in self._warm] + self._cold
        states = Counter(held) + Counter(evictable) + Counter(empty)
        assert states == Counter(every), "every block is empty, evictable or held, once"
        assert len(held) == self.num_held, "held blocks"
        assert len(self._order) == len(evictable) == self.num_evictable, "evictable blocks"
        assert all(b in self._order and b in self._free_since for b in evictable), (
            "evictable blocks"
        )
        assert all(self._is_kept[b] for b in evictable), "an evictable block is findable"
        assert not any(self._is_kept[b] for b in empty), "an empty block is not findable"
        assert all(holders >= 0 for holders in self._holders), "holders"
        assert all(0 < n <= self._holders[b] for b, n in self._pins.items()), "a pin is a holder"
        assert len(self._pins) <= self.max_pinned, "pins over the budget"
        for times in ([since for _, since in self._warm], list(self._free_since.values())):
            assert times == sorted(times), "oldest first"
