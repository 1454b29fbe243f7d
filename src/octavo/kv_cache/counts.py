"""KVCounts: how many blocks of a cache are in which state, as they are."""

from __future__ import annotations

from typing import NamedTuple


class KVCounts(NamedTuple):
    """Counts of blocks in all groups together, and the bytes of those that have memory. Any thread
    may ask for them: nothing is walked that changes meanwhile."""

    blocks_total: int
    blocks_used: int  # held by tables, or pinned
    blocks_cached: int  # held by nobody, but their tokens can be found
    blocks_evicted: int  # so far
    blocks_copied: int  # so far
    bytes_used: int
    bytes_cached: int
    bytes_empty: int  # of blocks that hold nothing, and whose memory was not given back
    blocks_pinned: int
