"""Block table: which block of each layer group holds which tokens of one sequence.

Of a table with s tokens stored and blocks of B tokens, in every group:

    blocks[: s // B]   whole: registered in the index (table.node is the last), never written again;
                       None where no row to come needs the block, by the group's rule, and where
                       the group has it of no sequence
    blocks[s // B]     being filled; at slot s % B by this table alone, else it is copied first
    blocks beyond      reserved for rows that have not run: this table's alone

Whoever holds a block of a group that keeps all holds all blocks before it. Tables are freed tail
first, so that a prefix is never evicted before what follows it. A table says which blocks it has;
it tells nobody who holds them: KVCache does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from octavo.kv_cache.groups import BlockId, Layout
from octavo.kv_cache.prefix_index import Node, Root

GroupBlocks = tuple[list[BlockId | None], ...]  # by group, all of one length; None: let go


@dataclass(slots=True, eq=False)
class BlockTable:
    layout: Layout
    root: Root
    node: Node  # the last whole one that is registered; the root at first
    blocks: GroupBlocks
    num_stored: int = 0  # tokens whose K and V are in the blocks
    ends: tuple[int, ...] = ()  # rows from which others may go on: of a prompt, of what was shared
    copies: list[tuple[BlockId, BlockId]] = field(default_factory=list)  # to make; sources are held
    registered: list[Node] = field(default_factory=list)  # by this table, each after its parent
    numbers: tuple[Sequence[int], ...] | None = None  # as kernels read them, until blocks change
    # The pool's `num_holds` when the block being filled was found to be this table's alone; -1: it
    # is not known. As long as the two are equal nobody else can have come to hold it.
    own_at: int = -1
    _check_at: int = 0  # no block can be let go before a row at this position is next

    def is_writable(self, end: int, num_holds: int) -> bool:
        """Tell whether it has blocks for the tokens up to `end`, and nobody shares them: no block
        got a holder since the one being filled was found to be its own."""
        return self.own_at == num_holds and end <= len(self.blocks[0]) * self.layout.block_size

    def present(self) -> Iterator[BlockId]:
        """The blocks that it has, of all groups."""
        return (block for blocks in self.blocks for block in blocks if block is not None)

    def filling(self) -> list[BlockId]:
        """The blocks that its next token goes to; none yet if it begins a block."""
        at = self.num_stored // self.layout.block_size
        return [b for blocks in self.blocks for b in blocks[at : at + 1] if b is not None]

    def extend(self, count: int, new: Iterable[Sequence[BlockId]]) -> None:
        """Append blocks to those of each group, to have `count` of them."""
        for group, (blocks, more) in enumerate(zip(self.blocks, new, strict=True)):
            begin, following = len(blocks), iter(more)
            if len(more) == count - begin:
                blocks += more
            else:  # the others are another group's
                has = self.layout.has
                blocks += [
                    next(following) if has(group, at) else None for at in range(begin, count)
                ]
        self.numbers = None

    def cut(self, count: int) -> list[BlockId]:
        """Take out all but the first `count` blocks of each group, the tail first."""
        tails = [reversed(blocks[count:]) for blocks in self.blocks]
        self.shorten(count)
        return [b for column in zip(*tails, strict=True) for b in column if b is not None]

    def shorten(self, count: int) -> None:
        """Take out all but the first `count` blocks of each group, if there are so many."""
        for blocks in self.blocks:
            del blocks[count:]
        self.numbers, self._check_at, self.own_at = None, 0, -1

    def num_more(self, count: int) -> list[int]:
        """Blocks of each group that it takes to have `count` of them, in steps."""
        more = self.layout.between(len(self.blocks[0]), count)
        if any(more):
            most = self.layout.at_most(count)
            for group in self.layout.windowed:
                held = len(self.blocks[group]) - self.blocks[group].count(None)
                more[group] = max(0, min(more[group], most[group] - held))
        return more

    def let_go(self, row: int) -> tuple[list[BlockId], list[BlockId]]:
        """Take out the whole blocks that no row from `row` on needs, the tail first: those that
        rows at `ends` need, and the others. Notes when there may be more of them."""
        if row < self._check_at:
            return [], []
        needs, size = self.layout.needs, self.layout.block_size
        kept: list[BlockId] = []
        spare: list[BlockId] = []
        check_at = row + size
        num_whole = self.num_stored // size
        for group in self.layout.windowed:
            blocks = self.blocks[group]
            for at, block in enumerate(blocks[: num_whole + 1]):
                if block is None:
                    continue
                if at < num_whole and not needs(group, at, row):
                    at_end = any(at * size < end and needs(group, at, end) for end in self.ends)
                    (kept if at_end else spare).append(block)
                    blocks[at] = self.numbers = None
                    continue
                while check_at > row + 1 and not needs(group, at, check_at - 1):
                    check_at -= 1
        self._check_at = check_at
        return kept[::-1], spare[::-1]

    def can_run(self, row: int) -> bool:
        """Tell whether it has all blocks that rows from `row` on read, or write next. Rows that are
        stored and run again store nothing: they need their own blocks too."""
        begin, end = row // self.layout.block_size, self.layout.count(self.num_stored)
        columns = zip(*(blocks[begin:end] for blocks in self.blocks), strict=True)
        has_own = not any(self.layout.lacks(c, at) for at, c in enumerate(columns, begin))
        return self.can_shrink(row) and has_own

    def can_shrink(self, num_tokens: int) -> bool:
        """Tell whether it would have all blocks that the next row reads, or writes, if it held the
        first `num_tokens` tokens alone."""
        at, slot = divmod(num_tokens, self.layout.block_size)
        columns = zip(*(blocks[: at + (slot > 0)] for blocks in self.blocks), strict=True)
        return num_tokens <= self.num_stored and all(
            self.layout.has_needed(column, i, num_tokens)
            if i < at
            else not self.layout.lacks(column, i)
            for i, column in enumerate(columns)
        )

    def view(self, first_ids: Sequence[int]) -> tuple[Sequence[int], ...]:
        """The numbers of its blocks in each group, whose first ids these are; 0 for None."""
        if self.numbers is None:
            self.numbers = tuple(
                [0 if block is None else block - first for block in blocks]
                for first, blocks in zip(first_ids, self.blocks, strict=True)
            )
        return self.numbers

    def check_integrity(self, first_ids: Sequence[int]) -> None:
        blocks = list(self.present())
        assert len(set(blocks)) == len(blocks), "a block twice in a table"
        (length,) = {len(blocks) for blocks in self.blocks}
        assert length >= self.layout.count(self.num_stored)
        assert self.node.end <= self.num_stored
        for g, (group, ids) in enumerate(zip(self.layout.groups, self.blocks, strict=True)):
            if group.keeps_all:
                assert all((b is not None) == self.layout.has(g, at) for at, b in enumerate(ids))
        numbers, self.numbers = self.numbers, None
        assert numbers in (None, self.view(first_ids)), "stale numbers"
        self.numbers = numbers


def _num_own(table: BlockTable) -> int:
    """Slots behind what it has stored."""
    at, slot = divmod(table.num_stored, table.layout.block_size)
    blocks = table.layout.between(at, len(table.blocks[0]))
    return sum(blocks) * table.layout.block_size - slot * sum(table.layout.between(at, at + 1))


def num_unfilled(
    tables: Iterable[BlockTable], num_named: Callable[[BlockId], int], num_holds: int | None
) -> int:
    """Slots of the tables' blocks that hold no token of anybody's, each block counted once:
    internal fragmentation, and what is reserved for rows that have not run. Of a block,
    `num_named` tokens can be found; `num_holds` as for `is_writable`, None to look at each."""
    unfilled: dict[BlockId, int] = {}
    num_own = 0  # in blocks of one table alone
    for table in tables:
        size = table.layout.block_size
        if table.own_at == num_holds:
            num_own += _num_own(table)
            continue
        at, slot = divmod(table.num_stored, size)
        for blocks in table.blocks:
            filled = slot
            for block in blocks[at:]:
                if block is not None:
                    named = num_named(block)
                    left = size - (named if named > filled else filled)
                    if left < unfilled.get(block, size + 1):
                        unfilled[block] = left
                filled = 0
    return num_own + sum(unfilled.values())
