"""KV cache manager: the block tables of sequences, over the block pool and the prefix index.

Knows tokens as ids, blocks as ids, and which slots of them hold K and V. Knows no requests, no
steps and no arrays: whoever calls it runs the rows and makes the copies it asks for.

Of a table with s tokens stored and blocks of B tokens:

    blocks[: s // B]   whole: registered in the index (table.node is the last), never written again
    blocks[s // B]     being filled; at slot s % B by this table alone, else it is copied first
    blocks beyond      reserved for rows that have not run: this table's alone

Whoever holds a block holds all blocks before it, and tables are freed tail first, so that a prefix
is never evicted before what follows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from octavo.kv_cache.block_pool import BlockId, BlockPool
from octavo.kv_cache.prefix_index import Match, Node, PrefixIndex

Copy = tuple[BlockId, BlockId]  # source, destination


@dataclass(slots=True, eq=False)
class BlockTable:
    """Which block holds which tokens of one sequence."""

    root: Node
    node: Node  # the last whole block that is registered; the root at first
    blocks: list[BlockId] = field(default_factory=list)
    num_stored: int = 0  # tokens whose K and V are in the blocks
    copies: list[Copy] = field(default_factory=list)  # to make before rows run; sources are held


class KVCacheManager:
    def __init__(
        self,
        pool: BlockPool,
        index: PrefixIndex,
        *,
        block_size: int,
        cost: Callable[[int, int], float] = lambda begin, end: float(end - begin),
    ) -> None:
        """`cost(begin, end)`: to compute tokens [begin, end) of a sequence again, in any unit."""
        self.pool = pool
        self.index = index
        self.block_size = block_size
        self.num_copied = 0  # blocks copied so far because they were shared
        self._cost = cost
        self._copying: Counter[BlockId] = Counter()  # holders that only wait to copy the block

    def count(self, num_tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-num_tokens // self.block_size)

    def num_missing(self, match: Match, num_tokens: int) -> int:
        """Free blocks that a table of `num_tokens` takes, beginning with what was matched."""
        matched = [n.block for n in match.nodes]
        held = sum(1 for b in matched if b is not None and self.pool.num_holders(b))
        return self.count(num_tokens) - held

    def begin(self, root: Node, match: Match) -> BlockTable:
        """A table that shares all blocks of a match, the partly matching one too: it is copied when
        its next slot is written."""
        nodes = [*match.nodes, *([match.partial] if match.partial else [])]
        blocks = [n.block for n in nodes if n.block is not None]
        assert len(blocks) == len(nodes)
        self.pool.touch(blocks)
        last = match.nodes[-1] if match.nodes else root
        return BlockTable(root, last, blocks, match.num_tokens)

    def fork(self, table: BlockTable) -> BlockTable:
        """Another table of the same tokens, sharing every block."""
        assert not table.copies, "a table forks after its step was committed"
        blocks = table.blocks[: self.count(table.num_stored)]
        self.pool.touch(blocks)
        return BlockTable(table.root, table.node, blocks, table.num_stored)

    def reserve(self, table: BlockTable, end: int) -> bool:
        """Make the slots of tokens [num_stored, end) this table's own to write. False if there is
        no room; then nothing has changed."""
        begin = table.num_stored
        if end <= begin:
            return True
        at = begin // self.block_size
        shared = at < len(table.blocks) and self._is_shared(table.blocks[at], begin)
        more = self.count(end) - len(table.blocks)
        taken = self.pool.allocate(max(0, more) + shared)
        if taken is None:
            return shared and self._take_over(table, at, max(0, more))
        if shared:
            source, copy = table.blocks[at], taken.pop()
            self._copying[source] += 1  # the table's hold of it is now the copy's
            table.copies.append((source, copy))
            table.blocks[at] = copy
            self.num_copied += 1
        table.blocks.extend(taken)
        return True

    def commit_copies(self, table: BlockTable) -> None:
        """The copies that the table waited for are made: their sources are free to go."""
        for source, _ in table.copies:
            self._copying[source] -= 1
        self.pool.free(source for source, _ in reversed(table.copies))
        table.copies.clear()

    def commit(self, table: BlockTable, tokens: Sequence[int], num_stored: int) -> None:
        """K and V of the first `num_stored` tokens are in the blocks now, and copies are made.
        Registers the blocks that became whole; one that the index has already is shared instead."""
        self.commit_copies(table)
        table.num_stored = max(table.num_stored, num_stored)
        self._register_whole(table, tokens)

    def free(self, table: BlockTable) -> None:
        """Give all blocks back, the tail first. What was registered stays findable."""
        self.commit_copies(table)
        self.pool.free(reversed(table.blocks))
        table.blocks = []
        table.num_stored, table.node = 0, table.root

    def register_tail(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Let the last block, partly filled, be found too; no more tokens will come."""
        if table.copies:
            return  # a copy that was not made holds nothing
        self._register_whole(table, tokens)  # what a commit that was broken off left unnamed
        begin = table.node.end
        tail = tokens[begin : table.num_stored]
        if not tail:
            return
        known = self.index.match_child(table.node, tail)
        if known is None or known[1] < len(tail):  # else a longer block holds these tokens already
            self._register(table, tail, begin // self.block_size)

    def close(self, root: Node) -> None:
        """Forget all that was registered under a root that only one request used."""
        for node in self.index.leaves_first(root):
            assert node.block is not None
            self.index.remove(node.block)
            self.pool.drop(node.block)

    def pin(self, root: Node, tokens: Sequence[int]) -> list[BlockId] | None:
        """Keep the whole blocks that are found of a prompt until `unpin`. None: over the budget."""
        nodes = self.index.match(root, tokens, len(tokens)).nodes
        blocks = [n.block for n in nodes if n.block is not None]
        return blocks if self.pool.pin(blocks) else None

    def unpin(self, blocks: Sequence[BlockId]) -> None:
        self.pool.unpin(blocks[::-1])

    def num_unfilled(self, tables: Iterable[BlockTable]) -> int:
        """Slots of the tables' blocks that hold no token of anybody's, each block counted once:
        internal fragmentation, and what is reserved for rows that have not run."""
        filled: dict[BlockId, int] = {}
        for table in tables:
            at = table.num_stored // self.block_size
            for i in range(at, len(table.blocks)):
                block = table.blocks[i]
                slots = max(self._num_named(block), table.num_stored - i * self.block_size)
                filled[block] = max(filled.get(block, 0), slots)
        return sum(self.block_size - slots for slots in filled.values())

    def recover(self, tables: Iterable[BlockTable]) -> None:
        """After an exception in the middle of a change: what the tables say is so, and what they do
        not hold is free. Findable blocks stay so."""
        holds: Counter[BlockId] = Counter()
        self._copying = Counter()
        for table in tables:
            table.copies = [c for c in table.copies if c[1] in table.blocks]
            holds.update(table.blocks)
            holds.update(source for source, _ in table.copies)
            self._copying.update(source for source, _ in table.copies)
        kept = []
        for node in self.index.rebuild():
            assert node.parent is not None
            assert node.block is not None
            cost = self._cost(node.parent.end, node.end)
            kept.append((node.block, node.parent.block, cost))
        self.pool.rebuild(holds, kept)

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """Every hold of the pool is a table's, a copy's or a pin's; the index agrees with both."""
        holds: Counter[BlockId] = Counter()
        copying: Counter[BlockId] = Counter()
        for table in tables:
            holds.update(table.blocks)
            holds.update(source for source, _ in table.copies)
            copying.update(source for source, _ in table.copies)
            assert len(set(table.blocks)) == len(table.blocks)
            assert len(table.blocks) >= self.count(table.num_stored)
            assert table.node.end <= table.num_stored
        self.pool.check_integrity()
        self.index.check_integrity()
        self.index.check_agreement(self.pool)
        for b in range(self.pool.num_blocks):
            block = BlockId(b)
            assert self.pool.num_holders(block) == holds[block] + self.pool.num_pins(block)
        assert +self._copying == copying

    def _is_shared(self, block: BlockId, position: int) -> bool:
        """Somebody else reads the block, or the index counts on its slot of this position."""
        others = self.pool.num_holders(block) - self._copying[block] > 1
        return others or self._num_named(block) > position % self.block_size

    def _num_named(self, block: BlockId) -> int:
        """Tokens of the block that the index finds."""
        node = self.index.node_of(block)
        return 0 if node is None else len(node.tokens)

    def _take_over(self, table: BlockTable, at: int, more: int) -> bool:
        """Without room for a copy, a block that only the index shares leaves the index."""
        block = table.blocks[at]
        if self.pool.num_holders(block) > 1:
            return False
        taken = self.pool.allocate(more)  # first: it evicts what follows the block
        if taken is None:
            return False
        self.index.forget(block)
        self.pool.drop(block)
        table.blocks.extend(taken)
        return True

    def _register_whole(self, table: BlockTable, tokens: Sequence[int]) -> None:
        """Name every block that is whole and has no name yet."""
        size = self.block_size
        while table.node.end + size <= table.num_stored:
            begin = table.node.end
            table.node = self._register(table, tokens[begin : begin + size], begin // size)

    def _register(self, table: BlockTable, tokens: Sequence[int], at: int) -> Node:
        """Name block `at` of a table; if the same tokens are kept elsewhere, use that block: its
        bits are the same."""
        block = table.blocks[at]
        named = self._num_named(block)
        node = self.index.register(table.node, tuple(tokens), block)
        if node.block != block:
            assert node.block is not None
            self.pool.touch([node.block])
            table.blocks[at] = node.block
            self.pool.free([block])
        elif named < len(tokens):
            begin = table.node.end
            tell = self.pool.renew if named else self.pool.keep
            tell(block, table.node.block, self._cost(begin, begin + len(tokens)))
        return node
