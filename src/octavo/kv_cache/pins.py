"""Pins: beginnings of prompts that stay in the cache, whoever needs room, until they are given up.

A pin holds whole blocks, all that the first row after them may read, as a table would. It changes
nothing of what is found. Of who asked for one it knows a name. Any thread may ask how many there
are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from octavo.errors import counted
from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.groups import BlockId, Layout
from octavo.kv_cache.prefix_index import Root
from octavo.kv_cache.sharing import Sharing
from octavo.records import Pin


class _Held(NamedTuple):
    root: Root
    blocks: list[BlockId]  # after their parents
    owner: str


class Pins:
    def __init__(self, layout: Layout, pool: BlockPool, sharing: Sharing) -> None:
        self._layout = layout
        self._pool = pool
        self._sharing = sharing
        self.holds: Counter[BlockId] = Counter()  # how many pins each block has
        self.num_bytes = 0  # of the different blocks that are pinned
        self._held: dict[Pin, _Held] = {}
        self._num_made = 0

    def add(
        self,
        root: Root,
        tokens: Sequence[int],
        most: int,
        *,
        owner: str = "",
        most_of_owner: int | None = None,
    ) -> Pin:
        """Pin the whole blocks of `tokens` that are known, all of them or, if more than `most`
        bytes would be pinned then, or more than that by their owner, none."""
        size = self._layout.block_size
        match = self._sharing.match(root, tokens[: len(tokens) // size * size])
        end = len(match.nodes) * size
        match = self._sharing.match(root, tokens[:end])  # what rows behind these blocks need
        end = len(match.nodes) * size
        if end == 0:
            return Pin(0, 0, f"none of its whole blocks of {size} tokens is in the cache")
        columns = zip(*match.blocks(self._layout), strict=True)
        blocks = [block for column in columns for block in column if block is not None]
        own = self._bytes({*blocks, *self._blocks_of(owner)})
        if self._bytes(self.holds.keys() | blocks) > most:
            return Pin(0, 0, f"{_more(end)} than memory is set aside for")
        if most_of_owner is not None and own > most_of_owner:
            return Pin(0, 0, f"{_more(end)} than one of several callers may")
        self._pool.hold(blocks)
        self._num_made += 1
        pin = Pin(self._num_made, end)
        self._held[pin] = _Held(root, blocks, owner)
        self.count()
        return pin

    def remove(self, pin: Pin) -> bool:
        """Give up a pin; False if it was given up before."""
        if pin not in self._held:
            return False
        held = self._held.pop(pin)
        self.count()
        self._pool.free(held.blocks[::-1])
        return True

    def of(self, root: Root) -> list[Pin]:
        """The pins under a root, oldest first."""
        return [pin for pin, held in self._held.items() if held.root is root]

    def count(self) -> None:
        """Count what the pins hold, after a change of them or an exception in one."""
        self.holds = Counter(block for held in self._held.values() for block in held.blocks)
        self.num_bytes = self._bytes(self.holds)

    def _blocks_of(self, owner: str) -> Iterator[BlockId]:
        return (b for held in self._held.values() if held.owner == owner for b in held.blocks)

    def _bytes(self, blocks: Iterable[BlockId]) -> int:
        groups = self._layout.groups
        return sum(groups[self._pool.group(block)].block_bytes for block in blocks)

    def check_integrity(self) -> None:
        """AssertionError unless the counts are those of the pins."""
        holds, num_bytes = self.holds, self.num_bytes
        self.count()
        assert (holds, num_bytes) == (self.holds, self.num_bytes), "pins"


def _more(num_tokens: int) -> str:
    return f"{counted(num_tokens, 'token')} more would be pinned"
