"""Arrays that end where memory ends: touching one byte more kills the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from numpy.typing import DTypeLike, NDArray

_libc = ctypes.CDLL(None, use_errno=True)


def guarded(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """A zero array whose last byte lies right before a page that may not be touched.

    The mapping lives as long as the array and its views.
    """
    count = int(np.prod(shape))
    size = count * np.dtype(dtype).itemsize
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    guard = ctypes.c_void_p(start + pages * mmap.PAGESIZE)
    assert _libc.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    offset = pages * mmap.PAGESIZE - size
    return np.frombuffer(memory, dtype, count, offset).reshape(shape)
