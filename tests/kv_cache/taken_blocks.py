"""Blocks of a pool by their ids, taken, and made findable."""

from __future__ import annotations

from collections.abc import Callable

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.groups import BlockId


def ids(*blocks: int) -> list[BlockId]:
    return [BlockId(b) for b in blocks]


def take(pool: BlockPool, count: int) -> list[BlockId]:
    taken = pool.allocate([count])
    assert taken is not None
    return taken[0]


def cached_chain(pool: BlockPool, count: int) -> list[BlockId]:
    """Held blocks that are findable, each the parent of the next."""
    blocks = take(pool, count)
    for block, parent in zip(blocks, [None, *blocks[:-1]], strict=True):
        pool.cache(block, parent, 1.0)
    return blocks


def free_chain(pool: BlockPool, count: int) -> list[BlockId]:
    """The same, freed from the tail on."""
    blocks = cached_chain(pool, count)
    pool.free(reversed(blocks))
    return blocks


def noting(evicted: list[BlockId]) -> Callable[[BlockId], list[BlockId]]:
    """What a pool calls for each block that it evicts."""

    def forget(block: BlockId) -> list[BlockId]:
        evicted.append(block)
        return []

    return forget
