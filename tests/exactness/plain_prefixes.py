"""PlainPrefixes: which whole blocks of which tokens can be found, as a dict of prefixes, and what a
table of a windowed group should hold.

Read off the tables after each step: it may not know all that can be found, but what it knows has to
be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from octavo.kv_cache.cache import BlockTable
from octavo.kv_cache.groups import BlockId

Key = tuple[int, str, tuple[int, ...]]  # group, salt, all tokens up to the end of the block


class PlainGroup(NamedTuple):
    """What a group of pages holds of a sequence."""

    window: int  # tokens that a row sees; 0: all
    beginning: int = 0  # that it sees beside the window
    has_first: bool = True  # block
    has_others: bool = True


class PlainPrefixes:
    def __init__(
        self, groups: Sequence[PlainGroup], block_size: int, is_cached: Callable[[BlockId], bool]
    ) -> None:
        self.groups = groups
        self.size = block_size
        self.is_cached = is_cached
        self.blocks: dict[Key, BlockId] = {}
        self.keys: dict[BlockId, Key] = {}

    def needs(self, group: int, at: int, row: int) -> bool:
        """Tell whether a row sees a token of block `at`."""
        window, beginning, has_first, has_others = self.groups[group]
        if not (has_others if at else has_first):
            return False
        if not window or at * self.size < beginning:
            return True
        return (at + 1) * self.size - 1 >= row - window + 1

    def check(self, table: BlockTable, row: int) -> None:
        """A group has the whole blocks that the next row reads, and no others."""
        for group, blocks in enumerate(table.blocks):
            for at in range(table.num_stored // self.size):
                assert (blocks[at] is not None) == self.needs(group, at, row)

    def note(self, salt: str, tokens: Sequence[int], table: BlockTable) -> None:
        for group, blocks in enumerate(table.blocks):
            for at in range(table.num_stored // self.size):
                block = blocks[at]
                if block is not None and block not in self.keys and self.is_cached(block):
                    key = group, salt, tuple(tokens[: (at + 1) * self.size])
                    self.blocks[key], self.keys[block] = block, key

    def forget(self, block: BlockId) -> None:
        """Note that the block holds other tokens from now on."""
        key = self.keys.pop(block, None)
        if key is not None and self.blocks.get(key) == block:
            del self.blocks[key]

    def longest(self, salt: str, tokens: Sequence[int]) -> int:
        """The longest prefix of whole blocks that has all that the rows to run will read."""
        for count in reversed(range(len(tokens) // self.size + 1)):
            row = min(count * self.size, len(tokens) - 1)
            wanted = [
                (group, salt, tuple(tokens[: (at + 1) * self.size]))
                for group in range(len(self.groups))
                for at in range(count)
                if self.needs(group, at, row)
            ]
            if all(key in self.blocks and self.is_cached(self.blocks[key]) for key in wanted):
                return count * self.size
        return 0


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens that both begin with."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
