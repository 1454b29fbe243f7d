"""Layer groups: layers that keep K and V of the same positions, in blocks of one size.

Comes in: what a block of a group takes, and the rule of what the group keeps. Goes out: which
blocks of a sequence may still be read. Knows nothing of tokens, tables or memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

BlockId = NewType("BlockId", int)
"""The id of a KV block. Those of the first group come first, then those of the second, ..."""


class Keep(Protocol):
    """Which positions of a sequence a layer group keeps."""

    def needs(self, begin: int, end: int, row: int) -> bool:
        """Tell whether a row at `row` or later may read positions [begin, end). If not, no later
        row may either."""


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Full attention: every row reads all positions before it."""

    def needs(self, begin: int, end: int, row: int) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class KeepLast:
    """A sliding window: a row reads the last `window` positions, its own among them."""

    window: int

    def needs(self, begin: int, end: int, row: int) -> bool:
        return end > row - self.window + 1


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """What a block of the group takes, and which blocks the group keeps."""

    block_bytes: int
    keeps: Keep = KeepAll()

    @property
    def keeps_all(self) -> bool:
        return isinstance(self.keeps, KeepAll)


class Layout:
    """The groups of a cache, and how tokens are cut into blocks."""

    def __init__(self, groups: Sequence[LayerGroup], block_size: int, max_rows: int) -> None:
        self.groups = tuple(groups)
        self.windowed = tuple(g for g, group in enumerate(groups) if not group.keeps_all)
        self.block_size = block_size
        self._max_rows = max_rows  # of one sequence in a step
        self._at_most: dict[tuple[int, int], int] = {}

    def count(self, num_tokens: int) -> int:
        """Blocks of a group that hold so many tokens."""
        return -(-num_tokens // self.block_size)

    def needs(self, group: int, at: int, row: int) -> bool:
        """Tell whether a row at `row` or later may read block `at` of a sequence."""
        begin = at * self.block_size
        return self.groups[group].keeps.needs(begin, begin + self.block_size, row)

    def has_needed(self, blocks: Sequence[BlockId | None], at: int, row: int) -> bool:
        """Tell whether all blocks are there, of those at `at` in each group, that rows from `row`
        on need."""
        return None not in blocks or not any(
            block is None and self.needs(group, at, row) for group, block in enumerate(blocks)
        )

    def at_most(self, count: int) -> list[int]:
        """Blocks of each group that a table of `count` blocks holds at once: those of a step's
        rows, and what the first of them needs, wherever in its block that is."""
        most = [count] * len(self.groups)
        for group in self.windowed:
            if (group, count) not in self._at_most:
                row = max(0, (count - 1) * self.block_size - self._max_rows + 1)
                first = row // self.block_size
                before = sum(self.needs(group, at, row) for at in range(first))
                self._at_most[group, count] = before + count - first
            most[group] = self._at_most[group, count]
        return most

    def bytes(self, counts: Iterable[int]) -> int:
        """Bytes of so many blocks of each group."""
        return sum(n * group.block_bytes for n, group in zip(counts, self.groups, strict=True))
