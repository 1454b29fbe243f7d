"""Eviction orders: which findable block that nobody holds is given up next.

Knows ids, and of each block its parent and the cost to compute it again. Knows neither tokens nor
holders. Every order gives a block before its parent, without which it is of no use: whoever holds a
block holds its parents, and frees the tail first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from octavo.kv_cache.groups import BlockId


class EvictionOrder(Protocol):
    """The free findable blocks, in the order they would be evicted."""

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """The block, held now, became findable; `cost` to compute it again, in any one unit."""

    def uncache(self, block: BlockId) -> None:
        """The block, not in the order now, is no longer findable: its history is forgotten."""

    def add(self, block: BlockId) -> None:
        """Nobody holds the block now: it may be evicted."""

    def remove(self, block: BlockId) -> None:
        """The block is held again (a reuse), or is about to be uncached."""

    def pop(self) -> BlockId:
        """Take out the block to evict next."""

    def clear(self) -> None:
        """Forget every block."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[BlockId]: ...

    def __contains__(self, block: object) -> bool: ...


class LeastRecentlyUsed:
    """Least recently freed first; blocks freed together in the order they were given, tail first.

    An OrderedDict: a deque has no O(1) removal from its middle, and a plain dict's first key is
    found by walking over every key deleted before it.
    """

    def __init__(self) -> None:
        self._order: OrderedDict[BlockId, None] = OrderedDict()

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        """Recency is the place in the order, so there is nothing to note."""

    def uncache(self, block: BlockId) -> None:
        """There is no history, so there is none to forget."""

    def add(self, block: BlockId) -> None:
        assert block not in self._order
        self._order[block] = None

    def remove(self, block: BlockId) -> None:
        del self._order[block]

    def pop(self) -> BlockId:
        return self._order.popitem(last=False)[0]

    def clear(self) -> None:
        self._order.clear()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[BlockId]:
        return iter(self._order)

    def __contains__(self, block: object) -> bool:
        return block in self._order
