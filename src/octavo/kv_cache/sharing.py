"""Sharing: which blocks tables have in common. What a prompt finds; what is copied before it is
written; what of a table others can find from then on, and what of that is taken back.

Knows the prefix index, who holds a block, and which blocks rows need. Takes no room itself: KVCache
does. A copy is made later, before rows run: until then what it is made from is held, by a holder
that does not count as a reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.block_table import BlockTable, GroupBlocks
from octavo.kv_cache.groups import BlockId, Layout
from octavo.kv_cache.prefix_index import Node, PrefixIndex, Root
from octavo.records import BlockEventKind as Kind
from octavo.records import CacheReason


class Match(NamedTuple):
    """A known prefix of a prompt."""

    nodes: Sequence[Node]  # whole ones, the root's child first
    partial: Node | None  # the child of the last of them that shares the most of what follows
    partial_tokens: int  # how many it shares
    row: int = 0  # the first that is still to run
    # Tokens that full layers have: more than `num_tokens` where windowed ones lack what rows read.
    known: int = 0

    @property
    def num_tokens(self) -> int:
        return (self.nodes[-1].end if self.nodes else 0) + self.partial_tokens

    @property
    def is_window_limited(self) -> bool:
        return self.num_tokens < self.known

    def blocks(self, layout: Layout) -> GroupBlocks:
        """The blocks that a table begins with, the partly matching one last; None where no row to
        come needs one."""
        nodes = [*self.nodes, *([self.partial] if self.partial else [])]
        blocks = tuple([n.blocks[g] for n in nodes] for g in range(len(layout.groups)))
        for group in layout.windowed:
            for at in range(len(self.nodes)):
                if not layout.needs(group, at, self.row):
                    blocks[group][at] = None
        return blocks


NO_MATCH = Match((), None, 0)


class Sharing:
    def __init__(
        self,
        layout: Layout,
        pool: BlockPool,
        index: PrefixIndex,
        *,
        cost: Callable[[int, int], float],
        tell: Callable[[Kind, Iterable[BlockId]], None],
    ) -> None:
        self.num_copied = 0  # blocks, so far
        self.copying: dict[BlockTable, None] = {}  # tables that have copies to be made
        self._layout = layout
        self._pool = pool
        self._index = index
        self._cost = cost
        self._tell = tell
        self._copied_from: Counter[BlockId] = Counter()  # holders that only wait to copy the block

    def match(self, root: Root, tokens: Sequence[int]) -> Match:
        """The longest known prefix whose rows still to run have what they need; the last token runs
        in any case. It ends before the last block that is missing though a row needs it: a longer
        one needs that too. The block that the next row would write is needed in every group."""
        layout = self._layout
        nodes, partial, num_shared = self._index.match(root, tokens)
        size, last = layout.block_size, len(tokens) - 1
        known = length = len(nodes) * size + num_shared
        if partial is not None and layout.lacks(partial.blocks, len(nodes)):
            partial, length = None, len(nodes) * size
        for at in reversed(range(len(nodes) if layout.windowed else 0)):
            if not layout.has_needed(nodes[at].blocks, at, min(length, last)):
                partial, length = None, at * size
        return Match(
            nodes if partial else nodes[: length // size],
            partial,
            num_shared if partial else 0,
            min(length, last),
            known,
        )

    def miss_reason(self, root: Root, tokens: Sequence[int], match: Match) -> CacheReason | None:
        """Say why not all that could be reused was; None if it was."""
        if match.num_tokens >= len(tokens) - 1:
            return None
        if match.is_window_limited:
            return CacheReason.WINDOW
        node = match.nodes[-1] if match.nodes else root
        if self._index.was_evicted(node, tokens[node.end :]):
            return CacheReason.EVICTED
        if not root.children:
            has_salt = root.namespace is not None and root.namespace.salt
            return CacheReason.SALT if has_salt else CacheReason.COLD
        return CacheReason.DIVERGED

    def needs_copy(self, table: BlockTable) -> bool:
        """Tell whether others read the block being filled, or count on its next slot to find it."""
        at, slot = divmod(table.num_stored, self._layout.block_size)
        if slot == 0:
            return False  # a new one
        for blocks in table.blocks:
            block = blocks[at]
            if block is None:
                continue  # another group's
            if self._pool.num_holders(block) - self._copied_from.get(block, 0) > 1:
                return True
            if self._index.num_named(block) > slot:
                return True
        return False

    def copy(self, table: BlockTable, taken: Sequence[list[BlockId]]) -> None:
        """The block being filled is to be copied, to the last of those taken in each group that has
        it; the table has the copies from now on."""
        at = table.num_stored // self._layout.block_size
        for blocks, new in zip(table.blocks, taken, strict=True):
            source = blocks[at]
            if source is not None:
                self._copied_from[source] += 1  # the table's hold of it is now the copy's
                table.copies.append((source, new[-1]))
                blocks[at] = new.pop()
        self.copying[table] = None
        self.num_copied += len(table.copies)
        self._tell(Kind.COPY, [copy for _, copy in table.copies])

    def end_copies(self, table: BlockTable) -> None:
        """The copies are made, or needed no more: their sources are free to go."""
        for source, _ in table.copies:
            self._copied_from[source] -= 1
        self._pool.free(source for source, _ in reversed(table.copies))
        table.copies.clear()
        self.copying.pop(table, None)

    def may_take_over(self, table: BlockTable) -> bool:
        """Tell whether nobody else holds the block being filled."""
        return all(self._pool.num_holders(block) == 1 for block in table.filling())

    def take_over(self, table: BlockTable) -> None:
        """Without room for a copy the block being filled is found no more, nor what follows it."""
        for block in table.filling():
            if self._pool.is_cached(block):
                for other in self._index.forget(block):
                    self._pool.uncache(other)
                self._pool.uncache(block)
                self._tell(Kind.TAKE_OVER, [block])

    def register_whole(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Let every block be found that is whole and has no name yet."""
        size = self._layout.block_size
        while table.node.end + size <= table.num_stored:
            begin = table.node.end
            table.node = self._register(table, tokens[begin : begin + size])
            self._index.prune(table.node)  # what was let go before it had a name leaves nothing

    def register_tail(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """The last block too, partly filled; no more tokens will come."""
        self.register_whole(table, tokens)  # what a commit that was broken off left unnamed
        tail = tokens[table.node.end : table.num_stored]
        if not tail:
            return
        self._restore(table)
        known = self._index.match_child(table.node, tail)
        if known is None or known[1] < len(tail):  # else a longer block holds these tokens already
            self._register(table, tail)

    def take_back(self, table: BlockTable, num_tokens: int) -> None:
        """Unregister what the table registered beyond `num_tokens`, unless another has it too."""
        while table.node.end > num_tokens:
            assert table.node.parent is not None
            table.node = table.node.parent
        while table.registered and table.registered[-1].end > num_tokens:
            node = table.registered.pop()
            if not node.children and self._index.is_known(node) and self._is_own(table, node):
                self._tell(Kind.TRUNCATE, self._unregister(node))

    def let_go(self, table: BlockTable, kept: Sequence[BlockId], spare: Sequence[BlockId]) -> None:
        """No row of the table reads these any more; others may go on from the `kept` ones. Under a
        root that is one request's alone nobody comes for the spare ones: they are found no more,
        so what its windows take next is their memory and not new memory."""
        self._pool.free(kept)
        self._pool.free(spare, spare=True)
        for block in spare if table.root.namespace is None else ():
            if block in self._pool.spare:  # no other branch holds it, or left it where it ended
                self._index.forget(block)
                self._pool.uncache(block)
        self._tell(Kind.LET_GO, [*kept, *spare])

    def close(self, root: Root) -> None:
        """Nothing under the root is found any more."""
        for node in self._index.leaves_first(root):
            if self._index.is_known(node):  # else it went with what followed it
                self._unregister(node)

    def clear(self, root: Root) -> int:
        """What nobody holds under the root is found no more; how many blocks that were."""
        count = 0
        for node in self._index.leaves_first(root):
            held = any(b is not None and self._pool.num_holders(b) for b in node.blocks)
            if not (held or node.children) and self._index.is_known(node):
                blocks = self._unregister(node)
                self._tell(Kind.CLEAR, blocks)
                count += len(blocks)
        return count

    def recover(self, tables: Iterable[BlockTable]) -> list[tuple[BlockId, BlockId | None, float]]:
        """After an exception in the middle of a change: copies that were not made are not to be
        made. All blocks that can be found, parents first, each with its parent and its cost."""
        self._copied_from.clear()
        self.copying.clear()
        for table in tables:
            at = table.num_stored // self._layout.block_size
            for source, _ in table.copies:
                table.blocks[self._pool.group(source)][at] = source
            table.copies.clear()
        cached = []
        for node in self._index.rebuild():
            above = node.parent
            assert above is not None
            for group, block in enumerate(node.blocks):
                if block is not None:
                    cost = self._cost(above.end, node.end)
                    cached.append((block, self._layout.above(above.blocks, group), cost))
        return cached

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """AssertionError unless the sources of these tables' copies are held for them."""
        sources = Counter(source for table in tables for source, _ in table.copies)
        assert +self._copied_from == sources, "holders that wait to copy"
        assert self.copying.keys() == {table for table in tables if table.copies}
        for table in tables:
            assert table.own_at != self._pool.num_holds or not self.needs_copy(table), "not its own"

    def _register(self, table: BlockTable, tokens: Sequence[int]) -> Node:
        """Name the blocks that follow `table.node`; if the same tokens are known elsewhere, use
        those blocks: their bits are the same."""
        self._restore(table)
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
                parent = self._layout.above(above.blocks, group)
                cache(block, parent, self._cost(above.end, node.end))
                self._tell(Kind.EXTEND if num_named else Kind.CACHE, [block])
                is_new = True
        if is_new and not is_shared:
            table.registered.append(node)
        return node

    def _restore(self, table: BlockTable) -> None:
        """What follows `table.node` is found below it, though it was let go and evicted."""
        if not self._index.is_known(table.node):
            table.node = self._index.restore(table.node)

    def _unregister(self, node: Node) -> list[BlockId]:
        """The blocks of the node, found no more."""
        blocks = self._index.remove(node)
        for block in blocks:
            self._pool.uncache(block)
        return blocks

    def _is_own(self, table: BlockTable, node: Node) -> bool:
        """Tell whether no other table holds a block of the node."""
        at = (node.end - 1) // self._layout.block_size
        pairs = zip(table.blocks, node.blocks, strict=True)
        return all(
            block is None or self._pool.num_holders(block) == (blocks[at] == block)
            for blocks, block in pairs
        )
