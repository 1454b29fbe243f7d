"""Atomic file: a file takes its place whole or not at all, whatever ends its writing half-way.

Comes in: a path, and bytes. What is written lies beside the path until it is moved there. Errors
are those of the system. Knows folders, and nothing of what is in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path`, for its owner to read; folders that are missing are made.

    Of several that write at once one wins. A power cut may lose it: this is for what can be made
    again.
    """
    with writing_whole(path) as file:
        file.write(content)


@contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Write piece by piece: all is at `path` when the block has ended, and gone if that raised.
    The rest is as with `write_whole`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:16]}.{os.urandom(8).hex()}.tmp")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with _moved(beside, path), os.fdopen(handle, "wb") as file:
        yield file


@contextmanager
def write_durably(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to, which is at `path` when the block has ended, and is gone if that
    raised. It survives a power cut.

    One writer at a time: the file beside has one name, so that the next writer takes over what a
    killed one left.
    """
    beside = path.with_name(f".{path.name}.tmp")
    with _moved(beside, path), beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.absolute().parent)


def sync_directory(directory: Path) -> None:
    """Make a rename in it survive from now on."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _moved(beside: Path, path: Path) -> Iterator[None]:
    try:
        yield
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
