"""A model's file, mapped: its bytes in place, and its lifetime.

Knows nothing of formats; whether files stay as they were is `file_stamps`' matter. Arrays from
`bytes_at` point into the mapping: drop them before `close`; then nothing maps the file.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError, ModelNotFoundError, OutOfMemoryError


class MappedFile:
    """An open file that is not empty; a context manager."""

    def __init__(self, path: Path, *, kind: str) -> None:
        """`kind` is what the file should be: "a GGUF file"."""
        self.path = path
        descriptor = _open_regular(path, kind)
        try:
            self._stamp = _stamp(descriptor)
            if self._stamp[1] == 0:
                raise ModelFormatError(f"{path}: expected {kind}, file is empty")
            self.mapping = _map(path, descriptor)
        finally:
            os.close(descriptor)

    def bytes_at(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """(nbytes,) uint8, read-only, in place: nothing is read yet."""
        return np.frombuffer(self.mapping, np.uint8, nbytes, offset)

    def drop_at(self, offset: int, nbytes: int) -> None:
        """Take the pages that hold only these bytes out of RSS; reading brings them back."""
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self.mapping.madvise(mmap.MADV_DONTNEED, start, end - start)

    def is_still(self, before: MappedFile) -> bool:
        """Whether the file is the one that `before` mapped, as long and not written to since."""
        as_long = len(self.mapping) == self._stamp[1]  # not cut before it was mapped
        return as_long and self._stamp == before._stamp

    def close(self) -> None:
        """Unmap; a BufferError if an array from `bytes_at` is still alive: the mapping goes with
        the last of them, or with another `close` after it."""
        self.mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except BufferError:
            if error is None:
                raise
            # The traceback of `error` keeps arrays alive; it matters more than the mapping,
            # which goes with the last of them.


class OpenFiles:
    """What is closed together; a context manager."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self._opened = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)


def _stamp(descriptor: int) -> tuple[int, int, int]:
    """Inode, size, mtime in ns."""
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _map(path: Path, descriptor: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:  # a limit on address space, which a mapping counts against
            raise OutOfMemoryError(
                f"cannot map {path}: memory is short: raise the limit (`ulimit -v`), or run a "
                "smaller model"
            ) from None
        raise ModelNotFoundError(f"cannot map {path}: {error.strerror}") from None


def _open_regular(path: Path, kind: str) -> int:
    try:
        # O_NONBLOCK: a FIFO must be refused below, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFormatError(f"{path} is not a regular file; give the path of {kind}")
    return descriptor


def read_text(path: Path) -> str:
    """All of a small text file. Raises ModelFormatError, ModelNotFoundError."""
    with MappedFile(path, kind="a text file") as file:
        try:
            return file.mapping[:].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ModelFormatError(f"{path} is not UTF-8 at byte {error.start:,}") from None
