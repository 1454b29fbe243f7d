"""Cost-aware eviction as its formula is written, slowly: lists and `min`, no heaps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from octavo.kv_cache.cost_aware import LIFETIME, RECENT_SHARE
from octavo.kv_cache.groups import BlockId


@dataclass
class Cached:
    parent: BlockId | None
    cost: float
    reuses: int = 0
    added: int | None = None  # None: held
    is_recent: bool = False


@dataclass
class PlainCostAware:
    now: int = 0
    cached: dict[BlockId, Cached] = field(default_factory=dict)

    def cache(self, block: BlockId, parent: BlockId | None, cost: float) -> None:
        self.cached[block] = Cached(parent, cost)

    def uncache(self, block: BlockId) -> None:
        del self.cached[block]

    def add(self, block: BlockId) -> None:
        self.now += 1
        one = self.cached[block]
        one.added, one.is_recent = self.now, one.reuses == 0

    def remove(self, block: BlockId) -> None:
        one = self.cached[block]
        one.added, one.is_recent, one.reuses = None, False, one.reuses + 1

    def pop(self) -> BlockId:
        leaves = [b for b in self.free() if b not in {k.parent for k in self.cached.values()}]
        over = [b for b in leaves if self.end(b) <= self.now]
        if over:
            return self.take(min(over, key=lambda b: (self.end(b), self.age_rank(b))))
        recent = sorted((b for b in self.free() if self.cached[b].is_recent), key=self.age_rank)
        passing = len(recent) - int(RECENT_SHARE * len(self.cached))
        while passing > 0 or all(self.cached[b].is_recent for b in leaves):
            self.cached[recent.pop(0)].is_recent = False
            passing -= 1
        proven = [b for b in leaves if not self.cached[b].is_recent]
        return self.take(min(proven, key=lambda b: (self.value(b), -self.age_rank(b))))

    def take(self, block: BlockId) -> BlockId:
        del self.cached[block]
        return block

    def free(self) -> list[BlockId]:
        return [b for b, one in self.cached.items() if one.added is not None]

    def age_rank(self, block: BlockId) -> int:
        added = self.cached[block].added
        assert added is not None
        return added

    def end(self, block: BlockId) -> float:
        one = self.cached[block]
        above = one.cost if one.parent is None else self.cached[one.parent].cost
        return self.age_rank(block) + LIFETIME * min(1.0, one.cost / above) ** 2

    def value(self, block: BlockId) -> int:
        one = self.cached[block]
        return math.floor(math.log2(one.cost)) + 2 * min(one.reuses, 2)
