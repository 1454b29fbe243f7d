"""Page storage: one reserved address range for a layer group, committed as pages are first touched.

Knows bytes of a block and their place. Knows neither what is in them nor who holds which block.
"""

from __future__ import annotations

import mmap

from octavo.errors import OutOfMemoryError

_MAP_NORESERVE = 0x4000  # Linux, all architectures that Octavo runs on; not in the mmap module


class PageStorage:
    """`num_blocks` blocks of `block_bytes` each; block b begins at b * block_bytes."""

    def __init__(self, num_blocks: int, block_bytes: int) -> None:
        assert block_bytes % mmap.PAGESIZE == 0, "blocks are whole memory pages"
        self.num_blocks = num_blocks
        self.block_bytes = block_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            self.memory = mmap.mmap(-1, num_blocks * block_bytes, flags=flags)
        except OSError as error:  # a limit on address space, or a system that does not overcommit
            raise OutOfMemoryError(
                f"cannot reserve {num_blocks * block_bytes:,} bytes for the KV cache "
                f"({error.strerror}): set a lower kv_memory, or raise the limit (`ulimit -v`)"
            ) from None

    def release(self, block: int) -> None:
        """Give a block's memory back to the system; it reads as zero until written."""
        self.memory.madvise(mmap.MADV_DONTNEED, block * self.block_bytes, self.block_bytes)
