"""Empty blocks of all layer groups: warm ones, which have memory, and cold ones, which have none.

Knows ids, bytes and times. Knows nothing of holders: who takes a block, and gives it back. Every
block that is not cold has memory, and all memory keeps one budget. Each group has as many ids as
blocks of it alone would fit that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from octavo.kv_cache.groups import BlockId


class EmptyBlocks:
    def __init__(self, block_bytes: Sequence[int], budget: int) -> None:
        self.block_bytes = tuple(block_bytes)
        self.budget = budget
        self.groups = [g for g, size in enumerate(block_bytes) for _ in range(budget // size)]
        self.released: dict[BlockId, None] = {}  # cold ones whose memory others are to have
        self.bytes_in_memory = 0  # of all blocks that have memory
        # By group. Warm blocks and when they became empty, oldest first. Taken from the end: the
        # memory of the block freed last is the likeliest to be in a processor's cache still.
        self._warm: list[deque[tuple[BlockId, float]]] = [deque() for _ in block_bytes]
        self._cold: list[list[BlockId]] = [[] for _ in block_bytes]
        for block in reversed(range(len(self.groups))):
            self._cold[self.groups[block]].append(BlockId(block))

    def __len__(self) -> int:
        return sum(map(len, self._warm)) + sum(map(len, self._cold))

    @property
    def bytes_warm(self) -> int:
        pairs = zip(self._warm, self.block_bytes, strict=True)
        return sum(len(warm) * size for warm, size in pairs)

    @property
    def oldest(self) -> float | None:
        """Return since when the warm block has been empty that was used longest ago."""
        return min((warm[0][1] for warm in self._warm if warm), default=None)

    def take(self, group: int) -> BlockId | None:
        """A block of the group: the warm one that was added last; else a cold one, as soon as the
        budget has room for it, without the warm blocks of other groups. None: it has not."""
        size, warm, cold = self.block_bytes[group], self._warm[group], self._cold[group]
        if warm:
            return warm.pop()[0]
        while not cold or self.bytes_in_memory + size > self.budget:
            others = next(filter(None, self._warm), None)
            if others is None:
                return None
            self.release(others.popleft()[0])
        block = cold.pop()
        self.released.pop(block, None)
        self.bytes_in_memory += size
        return block

    def add(self, block: BlockId, now: float) -> None:
        """A block with memory is empty."""
        self._warm[self.groups[block]].append((block, now))

    def cool(self, block: BlockId) -> None:
        """An empty block loses its memory now."""
        self._cold[self.groups[block]].append(block)
        self.bytes_in_memory -= self.block_bytes[self.groups[block]]

    def release(self, block: BlockId) -> None:
        """An empty block is to lose its memory before others are written."""
        self.released[block] = None
        self.cool(block)

    def pop_idle(self, since: float) -> list[BlockId]:
        """Take out the warm blocks that became empty at or before `since`."""
        idle = []
        for warm in self._warm:
            while warm and warm[0][1] <= since:
                idle.append(warm.popleft()[0])
        return idle

    def rebuild(self, empty: Iterable[BlockId], now: float) -> None:
        """After an exception in the middle of a change: these are empty, and no others."""
        was_cold = {b for cold in self._cold for b in cold}
        for warm, cold in zip(self._warm, self._cold, strict=True):
            warm.clear()
            cold.clear()
        self.bytes_in_memory = sum(self.block_bytes[group] for group in self.groups)
        for block in empty:
            if block in was_cold:
                self.cool(block)
            else:
                self.add(block, now)
        still = {b for cold in self._cold for b in cold}
        self.released = {b: None for b in self.released if b in still}

    def check_integrity(self, not_empty: Sequence[BlockId]) -> None:
        """AssertionError unless every block is here once or among the given ones, and the budget
        is kept."""
        warm = [b for blocks in self._warm for b, _ in blocks]
        cold = [b for blocks in self._cold for b in blocks]
        every = sorted([*not_empty, *warm, *cold])
        assert every == list(range(len(self.groups))), "a block is empty, evictable or held, once"
        with_memory = sum(self.block_bytes[self.groups[b]] for b in (*not_empty, *warm))
        assert with_memory == self.bytes_in_memory <= self.budget, "memory over the budget"
        assert self.released.keys() <= set(cold), "what is released is cold"
        for group, blocks in enumerate(self._cold):
            ids = [*blocks, *(b for b, _ in self._warm[group])]
            assert all(self.groups[b] == group for b in ids), "a block of another group"
            times = [since for _, since in self._warm[group]]
            assert times == sorted(times), "oldest first"
