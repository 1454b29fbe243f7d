"""Copy on write: a block that others read is copied before it is written.

Knows who holds a block and what of it can be found. The copy is made later, before rows run: until
then what it is made from is held, by a holder that does not count as a reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.block_table import BlockTable
from octavo.kv_cache.groups import BlockId
from octavo.kv_cache.prefix_index import PrefixIndex
from octavo.records import BlockEventKind as Kind


class CopyOnWrite:
    def __init__(self, pool: BlockPool, index: PrefixIndex, *, tell: Callable[..., None]) -> None:
        self.num_copied = 0  # so far
        self._pool = pool
        self._index = index
        self._tell = tell
        self._copying: Counter[BlockId] = Counter()  # holders that only wait to copy the block

    def is_shared(self, table: BlockTable) -> bool:
        """Tell whether others read the block being filled, or count on its next slot to find it."""
        at, slot = divmod(table.num_stored, table.layout.block_size)
        if slot == 0:
            return False  # a new one
        for blocks in table.blocks:
            block = blocks[at]
            assert block is not None
            if self._pool.num_holders(block) - self._copying.get(block, 0) > 1:
                return True
            if self._index.num_named(block) > slot:
                return True
        return False

    def may_take_over(self, table: BlockTable) -> bool:
        """Tell whether nobody else holds the block being filled."""
        return all(self._pool.num_holders(block) == 1 for block in table.filling())

    def copy(self, table: BlockTable, copies: Sequence[BlockId]) -> None:
        """The block being filled is to be copied; the table has the copies from now on."""
        at = table.num_stored // table.layout.block_size
        for blocks, copy in zip(table.blocks, copies, strict=True):
            source = blocks[at]
            assert source is not None
            self._copying[source] += 1  # the table's hold of it is now the copy's
            table.copies.append((source, copy))
            blocks[at] = copy
        self.num_copied += len(copies)
        self._tell(Kind.COPY, copies)

    def end_copies(self, table: BlockTable) -> None:
        """The copies are made, or needed no more: their sources are free to go."""
        for source, _ in table.copies:
            self._copying[source] -= 1
        self._pool.free(source for source, _ in reversed(table.copies))
        table.copies.clear()

    def take_over(self, table: BlockTable) -> None:
        """Without room for a copy the block being filled is found no more, nor what follows it."""
        for block in table.filling():
            if self._pool.is_cached(block):
                for other in self._index.forget(block):
                    self._pool.uncache(other)
                self._pool.uncache(block)
                self._tell(Kind.TAKE_OVER, [block])

    def undo_copies(self, tables: Iterable[BlockTable]) -> None:
        """After an exception: copies that were not made are not to be made."""
        self._copying.clear()
        for table in tables:
            at = table.num_stored // table.layout.block_size
            for source, _ in table.copies:
                table.blocks[self._pool.group(source)][at] = source
            table.copies.clear()

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        sources = Counter(source for table in tables for source, _ in table.copies)
        assert +self._copying == sources, "holders that wait to copy"
