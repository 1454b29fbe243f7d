"""Cost-aware eviction: weighs how often a block was reused, its age and the cost to recompute it.

Knows what EvictionOrder is told. Time is the number of blocks added so far: the policy knows no
clock and no number of blocks in the pool. Only a leaf, a free block without a findable child, may
go, so what is left of a prefix can always be reached. The leaf to go next is

1. of those past their lifetime, the one whose lifetime ended first;
2. else, of those that are not recent, the one of the least value, among equals the newest.

    lifetime  LIFETIME, times (cost / parent's cost) squared where that is below 1: a partly filled
              block saves less and is met again less often
    value     octaves of the cost, and two more for each reuse up to MOST_REUSES
    recent    never reused, and among the last such added: up to RECENT_SHARE of all cached blocks

LRU fails where the next use is farther away than the pool is large: it drops every block just
before its use. Keeping a part of them long enough gives hits in proportion. That is why the newest
of the unproven go first, after a while in which a quick reuse can save them. A pool that holds more
than LIFETIME blocks drops only what is past it, which is LRU but for partly filled blocks.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from octavo.kv_cache.groups import BlockId

LIFETIME = 9_500  # blocks added meanwhile
RECENT_SHARE = 0.15
MOST_REUSES = 2
OCTAVES_A_REUSE = 2

_Entry = tuple[float, int, BlockId]  # least first; the second is plus or minus `added`


@dataclass(slots=True)
class _Block:
    parent: BlockId | None
    cost: float
    lifetime: float
    num_children: int = 0  # findable ones, free or not
    num_reuses: int = 0
    added: int = 0  # when it became free
    is_free: bool = False

    @property
    def value(self) -> int:
        return math.frexp(self.cost)[1] + OCTAVES_A_REUSE * min(self.num_reuses, MOST_REUSES)


class CostAware:
    """Both heaps drop stale entries when they come up, or when these are more than the others."""

    def __init__(self) -> None:
        self._blocks: dict[BlockId, _Block] = {}
        self._num_free = 0
        self._now = 0
        self._recent: OrderedDict[BlockId, None] = OrderedDict()
        self._ends: list[_Entry] = []  # of all leaves: the end of its lifetime, added
        self._weakest: list[_Entry] = []  # of leaves that are not recent: value, -added

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        assert block not in self._blocks
        assert cost > 0
        lifetime = float(LIFETIME)
        if parent is not None:
            above = self._blocks[parent]
            above.num_children += 1
            lifetime *= min(1.0, cost / above.cost) ** 2
        self._blocks[block] = _Block(parent, cost, lifetime)

    def uncache(self, block: BlockId) -> None:
        state = self._blocks.get(block)
        if state is None:
            return  # forgotten when it was popped
        assert not state.is_free
        self._leave_parent(state)
        del self._blocks[block]

    def add(self, block: BlockId) -> None:
        state = self._blocks[block]
        assert not state.is_free
        self._now += 1
        self._num_free += 1
        state.added, state.is_free = self._now, True
        if not state.num_reuses:
            self._recent[block] = None
        if not state.num_children:
            self._offer(block, state)

    def remove(self, block: BlockId) -> None:
        state = self._blocks[block]
        assert state.is_free
        state.is_free = False
        state.num_reuses += 1
        self._num_free -= 1
        self._recent.pop(block, None)

    def pop(self) -> BlockId:
        block = self._first(self._ends)
        assert block is not None, "a free block has a free leaf below it"
        if self._ends[0][0] > self._now:
            block = self._pick_weakest()
        state = self._blocks.pop(block)
        self._num_free -= 1
        self._recent.pop(block, None)
        self._leave_parent(state)
        return block

    def clear(self) -> None:
        self._blocks.clear()
        self._recent.clear()
        self._ends.clear()
        self._weakest.clear()
        self._num_free = 0

    def __len__(self) -> int:
        return self._num_free

    def __iter__(self) -> Iterator[BlockId]:
        """O(n log n): pops a copy until it is empty."""
        rest = CostAware()
        rest._blocks = {block: replace(state) for block, state in self._blocks.items()}
        rest._num_free, rest._now = self._num_free, self._now
        rest._recent = self._recent.copy()
        rest._ends, rest._weakest = self._ends.copy(), self._weakest.copy()
        while rest._num_free:
            yield rest.pop()

    def __contains__(self, block: object) -> bool:
        state = self._blocks.get(block)  # type: ignore[call-overload]
        return state is not None and state.is_free

    def _leave_parent(self, state: _Block) -> None:
        """The block is gone; without it, its parent may be a leaf."""
        assert state.num_children == 0, "children go before their parent"
        if state.parent is None:
            return
        above = self._blocks[state.parent]
        above.num_children -= 1
        if above.is_free and not above.num_children:
            self._offer(state.parent, above)

    def _offer(self, block: BlockId, leaf: _Block) -> None:
        self._push(self._ends, (leaf.added + leaf.lifetime, leaf.added, block))
        if block not in self._recent:
            self._push(self._weakest, (leaf.value, -leaf.added, block))

    def _pick_weakest(self) -> BlockId:
        num_recent = int(RECENT_SHARE * len(self._blocks))
        while len(self._recent) > num_recent:
            self._pass_recent()
        while (block := self._first(self._weakest)) is None:
            self._pass_recent()  # every leaf is recent
        return block

    def _pass_recent(self) -> None:
        """The block longest among the recent ones is one of them no more."""
        block, _ = self._recent.popitem(last=False)
        state = self._blocks[block]
        if not state.num_children:
            self._push(self._weakest, (state.value, -state.added, block))

    def _push(self, heap: list[_Entry], entry: _Entry) -> None:
        heapq.heappush(heap, entry)
        if len(heap) > 2 * self._num_free + 64:  # a leaf has one entry that counts
            heap[:] = [e for e in heap if self._counts(e)]
            heapq.heapify(heap)

    def _first(self, heap: list[_Entry]) -> BlockId | None:
        while heap:
            if self._counts(heap[0]):
                return heap[0][2]
            heapq.heappop(heap)
        return None

    def _counts(self, entry: _Entry) -> bool:
        """Tell whether the block is free since the entry was made. It is a leaf, then: it has no
        child until it is held."""
        state = self._blocks.get(entry[2])
        return state is not None and state.is_free and state.added == abs(entry[1])
