"""Block pool: which KV blocks are free and which are held.

Knows ids only. Knows nothing of requests, arrays or layers.
Invariant: every block is in exactly one of {free list, held}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NewType

BlockId = NewType("BlockId", int)


class BlockPool:
    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        # Taken from the end: the block freed last is the one whose memory is likeliest still in a
        # cache.
        self._free = [BlockId(b) for b in reversed(range(num_blocks))]
        self._held: set[BlockId] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_held(self) -> int:
        return len(self._held)

    def allocate(self, count: int) -> list[BlockId] | None:
        """Take `count` blocks. None if there are too few; then nothing is taken."""
        assert count >= 0
        if count > len(self._free):
            return None
        taken = [self._free.pop() for _ in range(count)]
        self._held.update(taken)
        return taken

    def free(self, blocks: Iterable[BlockId]) -> None:
        """Give blocks back; each must be held."""
        for block in blocks:
            self._held.remove(block)  # KeyError: freed twice, a bug of ours
            self._free.append(block)

    def check_integrity(self) -> None:
        """Every block is free or held, once."""
        assert len(self._free) + len(self._held) == self.num_blocks
        assert set(self._free) | self._held == set(range(self.num_blocks))
