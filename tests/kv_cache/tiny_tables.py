"""Block tables driven as a scheduler would, over blocks of four tokens written as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import BlockTable, KVCache, Match, Root
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId, LayerGroup, Layout
from octavo.kv_cache.prefix_index import PrefixIndex
from octavo.records import BlockEvent, CacheReason

BLOCK_SIZE = 4


def new_index(block_size: int = 4, *, num_remembered: int = 4) -> tuple[PrefixIndex, Root]:
    """An index of one group, and a root in it."""
    layout = Layout([LayerGroup(1)], block_size, max_rows=block_size)
    index = PrefixIndex(layout, num_remembered=num_remembered)
    return index, index.root(namespace())


def namespace(salt: str = "") -> Namespace:
    return Namespace("weights", "numerics", "bf16", "bf16", salt=salt)


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(ord(c) for c in text if c != " ")


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    size = min(len(left), len(right))
    return max(n for n in range(size + 1) if tuple(left[:n]) == tuple(right[:n]))


class TinyTables:
    def __init__(
        self,
        budget: int,
        groups: Sequence[LayerGroup] = (LayerGroup(1),),
        *,
        max_rows: int = 4,
        order: EvictionOrder | None = None,
        cost: Callable[[int, int], float] = lambda begin, end: float(end - begin),
    ) -> None:
        self.now = 0.0
        self.order: EvictionOrder = LeastRecentlyUsed() if order is None else order
        self.events: list[BlockEvent] = []
        self.kv = KVCache(
            groups, block_size=BLOCK_SIZE, budget=budget, max_rows=max_rows, order=self.order,
            cost=cost, clock=lambda: self.now, on_event=self.events.append,
        )  # fmt: skip
        self.pool, self.index = self.kv.pool, self.kv.index
        self.root: Root = self.kv.open(namespace())
        self.tables: list[BlockTable] = []

    @property
    def evictable(self) -> list[BlockId]:
        """In the order in which they would go."""
        return [*self.pool.spare, *self.order]

    def match(self, text: str, root: Root | None = None) -> Match:
        return self.kv.match(root or self.root, tokens_of(text))

    def begin(self, text: str, root: Root | None = None, num_prompt: int = 0) -> BlockTable:
        """A table that shares what is known of a text, which begins with that long a prompt."""
        table = self.kv.begin(root or self.root, self.match(text, root), num_prompt)
        self.tables.append(table)
        self.check()
        return table

    def fork(self, table: BlockTable) -> BlockTable:
        self.tables.append(self.kv.fork(table))
        self.check()
        return self.tables[-1]

    def reserve(self, table: BlockTable, end: int) -> bool:
        done = self.kv.reserve(table, end)
        self.check()
        return done

    def commit(self, table: BlockTable, text: str) -> None:
        """Commit the table as if all rows of the text ran."""
        self.kv.commit_transfers()
        tokens = tokens_of(text)
        self.kv.commit(table, tokens, len(tokens))
        self.check()

    def run(self, table: BlockTable, text: str) -> list[tuple[BlockId, BlockId]]:
        """Compute all that is missing of a text; the copies it took."""
        assert self.reserve(table, len(tokens_of(text)))
        copies = list(table.copies)
        self.commit(table, text)
        return copies

    def admit(self, text: str, root: Root | None = None) -> BlockTable:
        table = self.begin(text, root)
        self.run(table, text)
        return table

    def truncate(self, table: BlockTable, num_tokens: int) -> None:
        self.kv.truncate(table, num_tokens)
        self.check()

    def end(self, table: BlockTable, text: str) -> None:
        """End the table; what it holds can still be found, the partial block too."""
        self.tables.remove(table)
        self.kv.free(table, tokens_of(text))
        self.check()

    def drop(self, table: BlockTable) -> None:
        self.tables.remove(table)
        self.kv.free(table)
        self.check()

    def evict(self, block: int) -> None:
        """As if the memory of a free block were needed, whatever the order."""
        self.pool.hold([BlockId(block)])
        for other in (*self.index.forget(BlockId(block)), BlockId(block)):
            self.pool.uncache(other)
        self.pool.free([BlockId(block)])
        self.check()

    def found(self, text: str) -> int:
        """Tokens of a prompt that are known."""
        return self.match(text).num_tokens

    def found_and_why(self, text: str, root: Root | None = None) -> tuple[int, CacheReason | None]:
        """The same, and why not more."""
        match = self.match(text, root)
        reason = self.kv.miss_reason(root or self.root, tokens_of(text), match)
        return match.num_tokens, reason

    def nodes(self, text: str, root: Root | None = None) -> list[list[BlockId | None]]:
        """The blocks of all groups in each whole node of a prompt."""
        return [node.blocks for node in self.match(text, root).nodes]

    def check(self) -> None:
        self.kv.check_integrity(self.tables)
