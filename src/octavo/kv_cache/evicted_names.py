"""Evicted names: which blocks were evicted last, so that a miss can tell evicted from never seen.

Knows names and lengths. Knows nothing of blocks, trees or memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from octavo.kv_cache.block_names import block_name


class EvictedNames:
    def __init__(self, block_size: int, num_remembered: int) -> None:
        self._block_size = block_size
        self._num_remembered = num_remembered
        # Oldest first: name -> tokens in the block; and name of the parent -> tokens in the partial
        # child of it that went last.
        self._names: OrderedDict[bytes, int] = OrderedDict()
        self._partials: OrderedDict[bytes, int] = OrderedDict()

    def add(self, parent: bytes, name: bytes, length: int) -> None:
        """The block `name` of `length` tokens was evicted; the oldest one is let go."""
        self._remember(self._names, name, length)
        if length < self._block_size:
            self._remember(self._partials, parent, length)

    def has_child(self, parent: bytes, following: Sequence[int]) -> bool:
        """Was a child of `parent` evicted that held the next whole block of `following`, or a part
        of it? Of the parts that were evicted, only the last one is known."""
        lengths = {self._block_size, self._partials.get(parent, self._block_size)}
        return any(
            block_name(parent, following[:length]) in self._names
            for length in lengths
            if length <= len(following)
        )

    def check_integrity(self) -> None:
        assert len(self._names) <= self._num_remembered
        assert len(self._partials) <= self._num_remembered

    def _remember(self, memory: OrderedDict[bytes, int], name: bytes, length: int) -> None:
        memory.pop(name, None)
        while len(memory) >= self._num_remembered:
            memory.popitem(last=False)
        memory[name] = length
