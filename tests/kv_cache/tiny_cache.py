"""A pool and an index driven as a cache would, with prompts written as text: "aaaa bbbb c"."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.kv_cache.block_pool import BlockId, BlockPool
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.names import Namespace
from octavo.kv_cache.prefix_index import Match, Node, PrefixIndex

BLOCK_SIZE = 4


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
        self.index = PrefixIndex(BLOCK_SIZE, num_remembered=num_remembered)
        self.order = LeastRecentlyUsed()
        self.pool = BlockPool(
            num_blocks,
            order=self.order,
            forget=self.index.forget,
            max_pinned=max_pinned,
            clock=lambda: self.now,
        )

    def match(self, text: str, *, limit: int | None = None, salt: str = "") -> Match:
        tokens = tokens_of(text)
        root = self.index.root(namespace(salt))
        return self.index.match(root, tokens, len(tokens) if limit is None else limit)

    def admit(self, text: str, *, salt: str = "") -> tuple[list[BlockId], int]:
        """Blocks for a prompt, the whole ones that are known reused, and how many tokens those
        hold. Everything is registered as if it were computed at once."""
        tokens = tokens_of(text)
        nodes = self.match(text, salt=salt).nodes
        blocks = [n.block for n in nodes if n.block is not None]
        self.pool.touch(blocks)
        taken = self.pool.allocate(-(-len(tokens) // BLOCK_SIZE) - len(blocks))
        assert taken is not None
        node = nodes[-1] if nodes else self.index.root(namespace(salt))
        for block in taken:
            node = self.register(node, tokens[node.end : node.end + BLOCK_SIZE], block)
        self.check()
        return blocks + taken, BLOCK_SIZE * len(nodes)

    def register(self, parent: Node, tokens: tuple[int, ...], block: BlockId) -> Node:
        node = self.index.register(parent, tokens, block)
        assert node.block == block
        self.pool.keep(block, parent.block, float(len(tokens)))
        return node

    def check(self) -> None:
        self.pool.check_integrity()
        self.index.check_integrity()
        self.index.check_agreement(self.pool)
