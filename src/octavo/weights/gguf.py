"""GGUF file: a mapped model file, its header, and its tensors' raw bytes.

Knows the mapping and its lifetime; `gguf_header` knows the format, `dequantize` the bytes.
Arrays from `data` point into the mapping: drop them before `close`; then nothing maps the file.
"""

from __future__ import annotations

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
from octavo.weights.gguf_header import MetadataValue, TensorInfo, parse_header


class GGUFFile:
    """An open GGUF file; a context manager."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Takes over `descriptor`; use `open`."""
        self.path = path
        self._descriptor = descriptor
        self._stamp = _stamp(descriptor)
        if self._stamp[0] == 0:
            raise ModelFormatError(f"{path}: magic at offset 0: expected b'GGUF', file is empty")
        self._mapping = _map(path, descriptor)
        try:
            header = parse_header(self._mapping, str(path))
        except BaseException:
            self._mapping.close()
            raise
        self.version = header.version
        self.metadata: dict[str, MetadataValue] = header.metadata
        self.tensors: dict[str, TensorInfo] = header.tensors
        self.notes: list[str] = header.notes

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map the file and check its whole header."""
        path = Path(path)
        descriptor = _open_regular(path)
        try:
            return cls(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, (nbytes,) uint8, read-only, in place: nothing is read yet."""
        info = self.tensors[name]
        return np.frombuffer(self._mapping, np.uint8, info.nbytes, info.offset)

    def drop(self, name: str) -> None:
        """Take the pages that hold only this tensor out of RSS; reading brings them back."""
        info = self.tensors[name]
        start = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (info.offset + info.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self._mapping.madvise(mmap.MADV_DONTNEED, start, end - start)

    def check_unchanged(self) -> None:
        """ModelFormatError if the file was written to since `open`."""
        size, mtime = self._stamp
        size_now, mtime_now = _stamp(self._descriptor)
        if (size_now, mtime_now) != (size, mtime):
            raise ModelFormatError(
                f"{self.path} changed while it was read: expected {size} bytes of mtime {mtime} "
                f"ns, found {size_now} bytes of {mtime_now} ns; run again when it is complete"
            )

    def close(self) -> None:
        """Unmap and close; a BufferError if an array from `data` is still alive."""
        if self._mapping.closed:
            return
        self._mapping.close()
        os.close(self._descriptor)

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


def _stamp(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


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


def _open_regular(path: Path) -> int:
    try:
        # O_NONBLOCK: a FIFO must be refused below, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelNotFoundError(f"cannot open {path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFormatError(f"{path} is not a regular file; give the path of a GGUF file")
    return descriptor
