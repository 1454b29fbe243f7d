"""Fingerprint: the SHA-256 of a model file, computed once and remembered as long as the file stays.

`home/fingerprints.json` holds what was computed: by path, with the inode, size and times the file
had. It is a cache: broken, missing or unwritable, it only costs another reading of the model. It is
replaced whole, so processes cannot corrupt it; of two that write at once one may be forgotten.
Without a home nothing is remembered.
Knows files and their times. Of what is in a model it knows nothing, but a directory's files, and
the parts of a GGUF file, are those that the model is read from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from octavo.atomic_file import write_whole
from octavo.errors import ModelFormatError, ModelNotFoundError
from octavo.interrupts import is_interrupt
from octavo.weights.part_names import part_paths

_log = logging.getLogger(__name__)

MAX_ENTRIES = 256
# A file written to twice within one tick of its file system's clock keeps its time: 2 s is the
# coarsest in use.
_TICK_NS = 2_000_000_000

_Stamp = list[int]  # inode, size, mtime ns, ctime ns; a list, as JSON gives it back
_Entries = dict[str, tuple[_Stamp, str]]  # by real path, the oldest first


def fingerprint(path: Path, *, home: Path | None) -> str:
    """SHA-256 of the file, in hex; of several (directory, parts), that of their names and sums."""
    files = files_of_model(path)
    return _of_one(path, home) if files == [path] else _of_all(files, home)


def known_fingerprint(path: Path, *, home: Path | None) -> str | None:
    """Return the fingerprint where no file has to be read for it; None where one must."""
    if any(remembered(each, home=home) is None for each in files_of_model(path)):
        return None
    return fingerprint(path, home=home)


def files_of_model(path: Path) -> list[Path]:
    """What a model is read from. Raises ModelError if a directory is none."""
    if path.is_dir():
        from octavo.weights.hf.directory import files_of  # a GGUF file's start does not wait

        return files_of(path)
    return part_paths(path)


def _of_all(paths: Iterable[Path], home: Path | None) -> str:
    sums = (f"{_of_one(each, home)} {each.name}\n" for each in paths)
    return hashlib.sha256("".join(sums).encode("utf-8", "surrogateescape")).hexdigest()


def _of_one(path: Path, home: Path | None) -> str:
    known = remembered(path, home=home)
    if known is not None:
        return known
    key = os.path.realpath(path)
    started = time.time_ns()
    try:
        stamp, digest = _digest(key)
    except OSError as error:
        if is_interrupt(error):  # a TimeoutError is one too
            raise
        raise ModelNotFoundError(f"cannot read {path}: {error.strerror or error}") from None
    if home is not None and stamp[2] < started - _TICK_NS:
        _remember(home / "fingerprints.json", key, stamp, digest)
    return digest


def remembered(path: Path, *, home: Path | None) -> str | None:
    """Return a file's sum if it was computed before and the file has stayed; nothing is read."""
    if home is None:
        return None
    key = os.path.realpath(path)
    try:
        stamp = _stamp(os.stat(key))
    except OSError as error:
        if is_interrupt(error):
            raise
        return None
    entry = _read(home / "fingerprints.json").get(key)
    return entry[1] if entry is not None and entry[0] == stamp else None


def forget(paths: Iterable[Path], *, home: Path) -> int:
    """Drop what is remembered of these files; return of how many there was something."""
    store = home / "fingerprints.json"
    entries = _read(store)
    gone = {os.path.realpath(path) for path in paths} & entries.keys()
    if gone:
        left = {path: entry for path, entry in entries.items() if path not in gone}
        write_whole(store, json.dumps(left, indent=1).encode())
    return len(gone)


def _stamp(status: os.stat_result) -> _Stamp:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest(path: str) -> tuple[_Stamp, str]:
    """The file's stamp and SHA-256, of one and the same content."""
    with open(path, "rb", buffering=0) as file:
        stamp = _stamp(os.fstat(file.fileno()))
        with contextlib.suppress(OSError):  # read once: what else the page cache holds stays in it
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(os.fstat(file.fileno()))[1:3] != stamp[1:3]:
            raise ModelFormatError(
                f"{path} changed while it was read; run again when it is complete"
            )
    return stamp, digest


def _read(store: Path) -> _Entries:
    """Return what is well-formed in the store; nothing if it cannot be read."""
    try:
        entries = json.loads(store.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if not isinstance(error, FileNotFoundError):
            _log.debug("%s is not used: %s", store, error)
        return {}
    if not isinstance(entries, dict):
        return {}
    return {path: tuple(entry) for path, entry in entries.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    match entry:
        case [[int(), int(), int(), int()], str(digest)]:
            return re.fullmatch("[0-9a-f]{64}", digest) is not None
    return False


def _remember(store: Path, path: str, stamp: _Stamp, digest: str) -> None:
    entries = _read(store)
    entries.pop(path, None)
    entries[path] = stamp, digest
    newest = dict(list(entries.items())[-MAX_ENTRIES:])
    try:
        write_whole(store, json.dumps(newest, indent=1).encode())
    except OSError as error:
        _log.debug("cannot remember fingerprints in %s: %s", store, error)
