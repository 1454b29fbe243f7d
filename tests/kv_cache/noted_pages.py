"""Pages that note in every slot the tokens whose K and V were written to it, instead of these: a
row that would read anything else fails."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.kv_cache.cache import BlockTable, KVCache, Transfer
from tests.kv_cache.plain_blocks import Block

Text = tuple[int, ...]


class NotedPages:
    def __init__(self, kv: KVCache) -> None:
        self.kv = kv
        self.pages: dict[Block, list[Text | None]] = {}

    def transfer(self, transfers: Iterable[Transfer]) -> None:
        for t in transfers:
            if t.kind == "copy":
                self.pages[t.group, t.to] = list(self.pages[t.group, t.block])
            else:
                self.pages.pop((t.group, t.block), None)
        memory = sum(self.kv.groups[group].block_bytes for group, _ in self.pages)
        assert memory <= self.kv.budget

    def write(self, table: BlockTable, tokens: Text, end: int) -> None:
        """The rows run from what is stored to `end`."""
        for row in range(table.num_stored, end):
            for block in self.blocks_at(table, row, row):
                page = self.pages.setdefault(block, [None] * self.kv.block_size)
                page[row % self.kv.block_size] = tokens[: row + 1]

    def read(self, table: BlockTable, tokens: Text, row: int) -> None:
        """Check that what a row reads was written for these tokens."""
        for position in range(min(row + 1, table.num_stored)):
            for block in self.blocks_at(table, position, row):
                noted = self.pages[block][position % self.kv.block_size]
                assert noted == tokens[: position + 1]

    def blocks_at(self, table: BlockTable, position: int, row: int) -> list[Block]:
        """Where the row finds the position, or writes it if it is its own."""
        at = position // self.kv.block_size
        return [
            (group, numbers[at])
            for group, numbers in enumerate(self.kv.view(table))
            if self.kv.groups[group].keeps.needs(position, position + 1, row)
        ]
