"""Page storage commits memory on first touch and gives it back."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from octavo.engine.pages import PageStorage
from octavo.errors import OutOfMemoryError

_libc = ctypes.CDLL(None, use_errno=True)


def resident_pages(storage: PageStorage, block: int) -> int:
    """Memory pages of a block that the system holds in RAM."""
    address = np.frombuffer(storage.memory, np.uint8).ctypes.data + block * storage.block_bytes
    pages = (ctypes.c_ubyte * (storage.block_bytes // mmap.PAGESIZE))()
    size = ctypes.c_size_t(storage.block_bytes)
    assert _libc.mincore(ctypes.c_void_p(address), size, pages) == 0
    return sum(page & 1 for page in pages)


def test_a_large_range_costs_nothing_until_it_is_written() -> None:
    storage = PageStorage(num_blocks=1 << 16, block_bytes=1 << 20)  # 64 GiB
    pages = np.frombuffer(storage.memory, np.uint8)
    assert [resident_pages(storage, b) for b in (0, 5, 65535)] == [0, 0, 0]
    pages[4 << 20 : 7 << 20] = 1
    assert resident_pages(storage, 5) == (1 << 20) // mmap.PAGESIZE
    storage.release(5)
    assert resident_pages(storage, 5) == 0
    assert pages[5 << 20] == 0
    assert [resident_pages(storage, b) for b in (4, 6)] == [(1 << 20) // mmap.PAGESIZE] * 2


def test_blocks_are_whole_memory_pages() -> None:
    with pytest.raises(AssertionError):
        PageStorage(2, 4095)


def test_an_address_range_that_cannot_be_had_is_refused_with_its_size() -> None:
    with pytest.raises(OutOfMemoryError, match="cannot reserve 4,503,599,627,370,496 bytes"):
        PageStorage(2**40, 4096)
