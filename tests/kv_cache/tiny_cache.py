"""A pool and an index driven as a cache would, with prompts written as text: "aaaa bbbb c"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.cache import Match
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId, LayerGroup, Layout
from octavo.kv_cache.prefix_index import Node, PrefixIndex, Root

BLOCK_SIZE = 4


@dataclass(frozen=True)
class KeepEnds:
    """The first `begin` positions and the last `window`."""

    begin: int
    window: int

    def needs(self, begin: int, end: int, row: int) -> bool:
        return begin < self.begin or end > row - self.window + 1


def one_group(block_size: int) -> Layout:
    return Layout([LayerGroup(1)], block_size, max_rows=block_size)


def new_index(block_size: int = 4, *, num_remembered: int = 4) -> tuple[PrefixIndex, Root]:
    """An index of one group, and a root in it."""
    index = PrefixIndex(one_group(block_size), num_remembered=num_remembered)
    return index, index.root(namespace())


def namespace(salt: str = "") -> Namespace:
    return Namespace("weights", "numerics", "bf16", "bf16", salt=salt)


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(ord(c) for c in text if c != " ")


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    size = min(len(left), len(right))
    return max(n for n in range(size + 1) if tuple(left[:n]) == tuple(right[:n]))


class TinyCache:
    def __init__(self, num_blocks: int, *, num_remembered: int = 8, max_pinned: int = 0) -> None:
        self.now = 0.0
        self.index = PrefixIndex(one_group(BLOCK_SIZE), num_remembered=num_remembered)
        self.order = LeastRecentlyUsed()
        self.pool = BlockPool(
            [1],
            num_blocks,
            order=self.order,
            forget=self.index.forget,
            max_pinned=max_pinned,
            clock=lambda: self.now,
        )

    def match(self, text: str, *, salt: str = "") -> Match:
        return Match(*self.index.match(self.index.root(namespace(salt)), tokens_of(text)))

    def admit(self, text: str, *, salt: str = "") -> tuple[list[BlockId], int]:
        """Blocks for a prompt, the whole ones that are known reused, and how many tokens those
        hold. Everything is registered as if it were computed at once."""
        tokens = tokens_of(text)
        nodes = self.match(text, salt=salt).nodes
        blocks = [b for n in nodes for b in n.blocks if b is not None]
        self.pool.hold(blocks)
        taken = self.pool.allocate(-(-len(tokens) // BLOCK_SIZE) - len(blocks))
        assert taken is not None
        node: Node = nodes[-1] if nodes else self.index.root(namespace(salt))
        for block in taken[0]:
            node = self.register(node, tokens[node.end : node.end + BLOCK_SIZE], block)
        self.check()
        return blocks + taken[0], BLOCK_SIZE * len(nodes)

    def register(self, parent: Node, tokens: tuple[int, ...], block: BlockId) -> Node:
        node = self.index.register(parent, tokens, [block])
        assert node.blocks == [block]
        self.pool.cache(block, parent.blocks[0], float(len(tokens)))
        return node

    def check(self) -> None:
        self.pool.check_integrity()
        self.index.check_integrity()
        self.index.check_agreement(self.pool)
