"""Huge pages under a mapped file: asked for, counted, and where there are few, had by copying.

A step reads all weights once, and in pages of 4 KiB it waits for the page table: some per cent of
its speed. Linux keeps a file in huge pages if it was written and is read so, on file systems that
can. Comes in: a mapping. Goes out: its bytes. Knows nothing of what they are.
"""

from __future__ import annotations

import contextlib
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

HUGE = 2 << 20  # bytes
_ENOUGH = 0.75  # of the bytes: then what is lost is less than one per cent
STRIP = 64 << 20  # bytes that are mapped in one call, which holds the GIL
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14; not in the mmap module
_NORESERVE = 0x4000  # MAP_NORESERVE
_COPIERS = 2  # threads: one alone does not fill the memory's bandwidth

Bytes = npt.NDArray[np.uint8]


def populated(mapping: mmap.mmap) -> tuple[Bytes, bool]:
    """All of a mapping, read from the disk now; and whether it is still the mapping: else it is a
    copy in huge pages, because the system has the file in small ones."""
    _populate(mapping)
    data: Bytes = np.frombuffer(mapping, np.uint8)
    if len(data) < HUGE or share_of_huge(data) >= _ENOUGH or not can_have_huge():
        return data, True
    try:
        return _copy(data), False
    except (OSError, RuntimeError):  # no memory for it, or no thread
        return data, True


def share_of_huge(data: Bytes, smaps: Path = Path("/proc/self/smaps")) -> float:
    """The part of a mapped file that lies in huge pages; 1 where the system does not tell."""
    begin, inside = f"{data.ctypes.data:x}-", False
    with contextlib.suppress(OSError), smaps.open() as lines:
        for line in lines:
            if line.startswith("FilePmdMapped:") and inside:
                return int(line.split()[1]) * 1024 / len(data)
            if not line[0].isupper():  # the first line of a mapping
                inside = line.startswith(begin)
    return 1.0


def can_have_huge(
    setting: Path = Path("/sys/kernel/mm/transparent_hugepage/enabled"),
) -> bool:
    try:
        return "[never]" not in setting.read_text()
    except OSError:
        return False


def _populate(mapping: mmap.mmap) -> None:
    """Read ahead is what cuts huge pages: it is off, and one is read at a time. Without huge pages
    a step would find them, page by page; an older system does that."""
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
        mapping.madvise(mmap.MADV_RANDOM)
    for start in range(0, len(mapping), STRIP):
        with contextlib.suppress(OSError):
            mapping.madvise(_POPULATE_READ, start, min(STRIP, len(mapping) - start))


def _copy(data: Bytes) -> Bytes:
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, len(data) + HUGE, flags=kind)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole: Bytes = np.frombuffer(memory, np.uint8)
    skip = -whole.ctypes.data % HUGE
    copy = whole[skip : skip + len(data)]
    with ThreadPoolExecutor(_COPIERS) as pool:
        for done in [
            pool.submit(np.copyto, copy[at : at + STRIP], data[at : at + STRIP])
            for at in range(0, len(data), STRIP)
        ]:
            done.result()
    copy.flags.writeable = False
    return copy
