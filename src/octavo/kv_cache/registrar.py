"""Registrar: lets the blocks of tables be found, and takes that back.

Knows the prefix index and which blocks of the pool are cached. Knows nothing of room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.block_table import BlockTable
from octavo.kv_cache.groups import BlockId, Layout
from octavo.kv_cache.prefix_index import Node, PrefixIndex
from octavo.records import BlockEventKind as Kind


class Registrar:
    def __init__(
        self,
        layout: Layout,
        pool: BlockPool,
        index: PrefixIndex,
        *,
        cost: Callable[[int, int], float],
        tell: Callable[..., None],
    ) -> None:
        self._layout = layout
        self._pool = pool
        self._index = index
        self._cost = cost
        self._tell = tell

    def register_whole(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Register every block that is whole and has no name yet."""
        size = self._layout.block_size
        while table.node.end + size <= table.num_stored:
            begin = table.node.end
            table.node = self._register(table, tokens[begin : begin + size])

    def register_tail(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Register the last block too, partly filled; no more tokens will come."""
        self.register_whole(table, tokens)  # what a commit that was broken off left unnamed
        tail = tokens[table.node.end : table.num_stored]
        if not tail:
            return
        known = self._index.match_child(table.node, tail)
        if known is None or known[1] < len(tail):  # else a longer block holds these tokens already
            self._register(table, tail)

    def take_back(self, table: BlockTable, num_tokens: int) -> None:
        """Unregister what the table registered beyond `num_tokens`, unless it is another's
        too."""
        while table.node.end > num_tokens:
            assert table.node.parent is not None
            table.node = table.node.parent
        while table.registered and table.registered[-1].end > num_tokens:
            node = table.registered.pop()
            if not node.children and self._index.is_known(node) and self._is_own(table, node):
                blocks = self._index.remove(node)
                for block in blocks:
                    self._pool.uncache(block)
                self._tell(Kind.TRUNCATE, blocks)

    def cached(self) -> list[tuple[BlockId, BlockId | None, float]]:
        """Return all blocks that can be found after an exception in the middle of a change, parents
        first, each with its parent and its cost."""
        cached = []
        for node in self._index.rebuild():
            for group, block in enumerate(node.blocks):
                if block is not None:
                    assert node.parent is not None
                    cost = self._cost(node.parent.end, node.end)
                    cached.append((block, self._parent(node.parent, group), cost))
        return cached

    def _register(self, table: BlockTable, tokens: Sequence[int]) -> Node:
        """Name the blocks that follow `table.node`; if the same tokens are known elsewhere, use
        those blocks: their bits are the same."""
        if not self._index.is_known(table.node):  # let go in all groups, and evicted
            table.node = self._index.restore(table.node)
        above, at = table.node, table.node.end // self._layout.block_size
        mine = [blocks[at] for blocks in table.blocks]
        named = [0 if block is None else self._index.num_named(block) for block in mine]
        node = self._index.register(above, tuple(tokens), mine)
        is_new, is_shared = False, False
        for group, (block, num_named) in enumerate(zip(mine, named, strict=True)):
            known = node.blocks[group]
            if block is None:
                continue
            assert known is not None
            if known != block:
                is_shared = True
                self._pool.hold([known])
                table.blocks[group][at], table.numbers = known, None
                self._pool.free([block])
                self._tell(Kind.SHARE, [known])
            elif num_named < len(tokens):
                cache = self._pool.recache if num_named else self._pool.cache
                cache(block, self._parent(above, group), self._cost(above.end, node.end))
                self._tell(Kind.EXTEND if num_named else Kind.CACHE, [block])
                is_new = True
        if is_new and not is_shared:
            table.registered.append(node)
        return node

    def _parent(self, above: Node, group: int) -> BlockId | None:
        """Return the block that must not be evicted before that of a node below; None if any
        may."""
        return above.blocks[group] if self._layout.groups[group].keeps_all else None

    def _is_own(self, table: BlockTable, node: Node) -> bool:
        """Tell whether no other table holds a block of the node."""
        at = (node.end - 1) // self._layout.block_size
        pairs = zip(table.blocks, node.blocks, strict=True)
        return all(
            block is None or self._pool.num_holders(block) == (blocks[at] == block)
            for blocks, block in pairs
        )
