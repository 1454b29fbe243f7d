"""Whether files are still what they were when a model began to be read.

Comes in: paths, of which some may not be there. Knows their inodes, sizes and times, and nothing of
what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from octavo.errors import ModelFormatError
from octavo.interrupts import is_interrupt

Stamps = Mapping[Path, tuple[int, int, int] | None]  # inode, size, mtime ns; None: not there


def stamps(paths: Iterable[Path]) -> Stamps:
    """Taken before the files are read: what changes while they are is then noticed."""
    return {path: _stamp(path) for path in paths}


def check_unchanged(seen: Stamps) -> None:
    """ModelFormatError that names a file which is not as `seen`."""
    for path, stamp in seen.items():
        if _stamp(path) != stamp:
            raise ModelFormatError(f"{path} changed while the model was loaded: load it again")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # no frame of pathlib's: most are missing, and each tensor asks
    except OSError as error:
        if is_interrupt(error):  # a TimeoutError is one too
            raise
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
