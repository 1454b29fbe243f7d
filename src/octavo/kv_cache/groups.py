"""Layer groups: layers that keep K and V of the same positions, in blocks of one size.

Comes in: what a block of a group takes, and the rule of what the group keeps. Goes out: which
blocks of a sequence may still be read. Knows nothing of tokens, tables or memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

BlockId = NewType("BlockId", int)
"""The id of a KV block. Those of the first group come first, then those of the second, ..."""


class Keep(Protocol):
    """Which positions of a sequence a layer group keeps: some at the beginning, some at the end."""

    def needs(self, begin: int, end: int, row: int) -> bool:
        """Tell whether a row at `row` or later may read positions [begin, end). If not, no later
        row may either."""


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Full attention: every row reads all positions before it. Of a sequence the group has whole
    blocks, `begin` to `end`; the others are in another group, of the same layers."""

    begin: int = 0
    end: int = sys.maxsize

    def needs(self, begin: int, end: int, row: int) -> bool:
        return self.begin <= begin < self.end


@dataclass(frozen=True, slots=True)
class KeepLast:
    """A sliding window: a row reads the last `window` positions, its own among them."""

    window: int

    def needs(self, begin: int, end: int, row: int) -> bool:
        return end > row - self.window + 1


@dataclass(frozen=True, slots=True)
class KeepEnds:
    """A sliding window beside the beginning: a row reads the first `beginning` positions, too."""

    beginning: int
    window: int

    def needs(self, begin: int, end: int, row: int) -> bool:
        return begin < self.beginning or end > row - self.window + 1


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """What a block of the group takes in bytes, and which blocks of a sequence it keeps."""

    block_bytes: int
    keeps: Keep = KeepAll()

    @property
    def keeps_all(self) -> bool:
        return isinstance(self.keeps, KeepAll)


class Layout:
    """The groups of a cache, and how tokens are cut into blocks. How bytes lie in a block is the
    core's `KVLayout`."""

    def __init__(self, groups: Sequence[LayerGroup], block_size: int, max_rows: int) -> None:
        self.groups = tuple(groups)
        self.windowed = tuple(g for g, group in enumerate(groups) if not group.keeps_all)
        self.block_size = block_size
        # Of groups that have a part of a sequence: their first block, and the one after the last.
        self._parts = {
            g: (group.keeps.begin // block_size, group.keeps.end // block_size)
            for g, group in enumerate(groups)
            if isinstance(group.keeps, KeepAll) and group.keeps != KeepAll()
        }
        self._max_rows = max_rows  # of one sequence in a step
        self._at_most: dict[tuple[int, int], int] = {}

    def count(self, num_tokens: int) -> int:
        """Blocks of a group that hold so many tokens."""
        return -(-num_tokens // self.block_size)

    def needs(self, group: int, at: int, row: int) -> bool:
        """Tell whether a row at `row` or later may read block `at` of a sequence."""
        begin = at * self.block_size
        return self.groups[group].keeps.needs(begin, begin + self.block_size, row)

    def between(self, begin: int, end: int) -> list[int]:
        """Blocks that each group has of those at [begin, end) of a sequence."""
        counts = [max(0, end - begin)] * len(self.groups)
        for group, (first, last) in self._parts.items():
            counts[group] = max(0, min(end, last) - max(begin, first))
        return counts

    def has(self, group: int, at: int) -> bool:
        """Tell whether the group has block `at` of a sequence, before it lets go any."""
        first, last = self._parts.get(group, (0, sys.maxsize))
        return first <= at < last

    def lacks(self, blocks: Sequence[BlockId | None], at: int) -> bool:
        """Tell whether one is missing, of those at `at` in each group."""
        return None in blocks and any(b is None and self.has(g, at) for g, b in enumerate(blocks))

    def above(self, blocks: Sequence[BlockId | None], group: int) -> BlockId | None:
        """Return, of the blocks before that of a group, the one that has to outlast it, if one has
        to: its own, or where that is in another group, one there."""
        if not self.groups[group].keeps_all:
            return None
        if blocks[group] is not None:
            return blocks[group]
        kept = zip(blocks, self.groups, strict=True)
        return next((b for b, other in kept if b is not None and other.keeps_all), None)

    def has_needed(self, blocks: Sequence[BlockId | None], at: int, row: int) -> bool:
        """Tell whether all blocks are there, of those at `at` in each group, that rows from `row`
        on need."""
        return None not in blocks or not any(
            block is None and self.needs(group, at, row) for group, block in enumerate(blocks)
        )

    def at_most(self, count: int) -> list[int]:
        """Blocks of each group that a table of `count` blocks holds at once: those of a step's
        rows, and what the first of them needs, wherever in its block that is."""
        most = self.between(0, count)
        for group in self.windowed:
            if (group, count) not in self._at_most:
                row = max(0, (count - 1) * self.block_size - self._max_rows + 1)
                first = row // self.block_size
                self._at_most[group, count] = self._num_needed(group, first, row) + count - first
            most[group] = self._at_most[group, count]
        return most

    def _num_needed(self, group: int, count: int, row: int) -> int:
        """Count which of the first `count` blocks rows from `row` on need. What is between those
        at the beginning and those at the end is not looked at: it may be long."""
        begin, end = 0, count
        while begin < end and self.needs(group, begin, row):
            begin += 1
        while end > begin and self.needs(group, end - 1, row):
            end -= 1
        return begin + count - end

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in every group, behind what only the beginning of a sequence has."""
        return self.bytes(self.between(1, 2))

    def bytes(self, counts: Iterable[int]) -> int:
        """Bytes of so many blocks of each group."""
        return sum(n * group.block_bytes for n, group in zip(counts, self.groups, strict=True))
