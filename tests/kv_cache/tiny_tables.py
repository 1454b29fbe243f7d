"""Block tables driven as a scheduler would, over blocks of four tokens written as text."""

from __future__ import annotations

from octavo.kv_cache.manager import BlockTable, Copy, KVCacheManager
from tests.kv_cache.tiny_cache import BLOCK_SIZE, TinyCache, namespace, tokens_of


class TinyTables:
    def __init__(self, num_blocks: int, *, max_pinned: int = 0) -> None:
        self.cache = TinyCache(num_blocks, max_pinned=max_pinned)
        self.pool, self.index = self.cache.pool, self.cache.index
        self.kv = KVCacheManager(self.pool, self.index, block_size=BLOCK_SIZE)
        self.root = self.index.root(namespace())
        self.tables: list[BlockTable] = []

    def begin(self, text: str) -> BlockTable:
        """A table that shares what is known of a prompt."""
        tokens = tokens_of(text)
        table = self.kv.begin(self.root, self.index.match(self.root, tokens, len(tokens)))
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
        """All rows of the text ran."""
        tokens = tokens_of(text)
        self.kv.commit(table, tokens, len(tokens))
        self.check()

    def run(self, table: BlockTable, text: str) -> list[Copy]:
        """Compute all that is missing of a text; the copies it took."""
        assert self.reserve(table, len(tokens_of(text)))
        copies = list(table.copies)
        self.commit(table, text)
        return copies

    def admit(self, text: str) -> BlockTable:
        table = self.begin(text)
        self.run(table, text)
        return table

    def end(self, table: BlockTable, text: str) -> None:
        """What it holds stays findable, the partial block too."""
        self.kv.register_tail(table, tokens_of(text))
        self.drop(table)

    def drop(self, table: BlockTable) -> None:
        self.tables.remove(table)
        self.kv.free(table)
        self.check()

    def found(self, text: str) -> int:
        """Tokens of a prompt that are known."""
        tokens = tokens_of(text)
        return self.index.match(self.root, tokens, len(tokens)).num_tokens

    def check(self) -> None:
        self.kv.check_integrity(self.tables)
