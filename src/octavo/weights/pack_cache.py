"""Pack cache: packed weights of models in `home/packed`, mapped at the next start.

A file is named by its model's fingerprint and by a key of all that its bytes depend on: the packing
(`PACKING`), and each weight's place in the model's files, shape and format. Panels are the same on
every ISA level, so none is in the key. All files together have a limit; those that were not used
for the longest go first, by their mtime, which each use sets. A file that is no good costs a line
of log and is written again. Files are moved into place and removed, never changed, so that those
that map one keep it.

Knows files and bytes; when a file is written is the caller's matter.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from octavo.atomic_file import writing_whole
from octavo.errors import ModelFormatError, ModelNotFoundError
from octavo.program.ops import WeightSpec
from octavo.weights.file_table import in_memory
from octavo.weights.model_header import ModelHeader
from octavo.weights.model_weights import ModelWeights
from octavo.weights.packed_file import (
    Entry,
    check,
    file_bytes,
    is_sound,
    layout,
    model_in,
    open_packed,
    write_packed,
)

logger = logging.getLogger(__name__)

PACKING = 1  # raise when the same tensor gives other packed bytes, or is read in another way
LIMIT = 16 << 30  # bytes of all files
SPARE = 1 << 30  # bytes that writing leaves free on the disk
_MOMENT = 10.0  # seconds in which a writer has locked the file that it has made
_STALE = 3600.0  # seconds after which a file is nobody's any more where there are no locks
_SUFFIX = ".packed"


@dataclass(frozen=True, slots=True)
class KeptPack:
    """A file of the cache."""

    path: Path
    nbytes: int
    used: float  # seconds since the epoch

    @property
    def fingerprint(self) -> str:
        """Return its model's fingerprint."""
        return self.path.name.partition("-")[0]

    @property
    def model(self) -> str:
        """The path its model had when it was written; "" if the file does not say."""
        try:
            return model_in(self.path)
        except (ModelFormatError, ModelNotFoundError):
            return ""


@dataclass(frozen=True, slots=True)
class PackFile:
    """Where the packed weights of one model are, or would be."""

    path: Path
    key: str
    model: str
    entries: list[Entry]

    @classmethod
    def of(
        cls,
        home: Path,
        fingerprint: str,
        header: ModelHeader,
        specs: Mapping[str, WeightSpec],
        formats: Mapping[str, str],
    ) -> PackFile:
        specs = in_memory(specs)
        parts = header.parts(specs)
        facts = {
            "packing": PACKING,
            "fingerprint": fingerprint,
            "norm_offset": header.files.norm_offset,
            "weights": [
                [name, spec.shape, formats.get(name), parts[name].info.type.name,
                 repr(parts[name].view)]
                for name, spec in specs.items()
            ],
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        path = folder(home) / f"{fingerprint}-{key[:16]}{_SUFFIX}"
        return cls(path, key, str(header.path.absolute()), layout(specs, formats))

    def read(self) -> ModelWeights | None:
        """The weights, mapped; None if they were not kept, or not well."""
        if not os.path.exists(self.path):  # of a folder that may not be searched, False too
            return None
        try:
            weights = open_packed(self.path, self.key, self.entries)
        except (ModelFormatError, ModelNotFoundError) as error:
            logger.warning("%s: the model is packed again", error)
            return None
        with contextlib.suppress(OSError):  # a folder of others: its owner's uses count
            os.utime(self.path)
        _remove_stale(self.path.parent)
        return weights

    def write(self, weights: ModelWeights, before_slice: Callable[[], None]) -> None:
        """Keep the weights, if there is room for them; `before_slice` may wait, or raise to end it.
        What the system refuses is logged."""
        import shutil  # with archives of all kinds: a start that finds the weights does not wait

        size = file_bytes(self.key, self.model, self.entries)
        try:
            before_slice()
            if self._is_kept():  # by another process, meanwhile
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(self.path.parent)
            free = shutil.disk_usage(self.path.parent).free
            if size > LIMIT:
                logger.warning(
                    "the packed weights are not kept: they take %s bytes, and all that are kept at "
                    "most %s: --no-pack-cache leaves this out", f"{size:,}", f"{LIMIT:,}",
                )  # fmt: skip
                return
            if free < size + SPARE:
                logger.warning(
                    "the packed weights are not kept in %s: they take %s bytes, and %s are free, "
                    "of which %s stay so: free space there, or say --no-pack-cache",
                    self.path.parent, f"{size:,}", f"{free:,}", f"{SPARE:,}",
                )  # fmt: skip
                return
            with writing_whole(self.path) as file:
                with contextlib.suppress(OSError):  # not every file system has locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_packed(file, self.key, self.model, self.entries, weights, before_slice)
            evict(self.path.parent, keep=self.path)
        except OSError as error:
            logger.warning(
                "the packed weights cannot be kept in %s (%s): the model is packed at each start; "
                "set OCTAVO_HOME to a directory that can be written, or say --no-pack-cache",
                self.path.parent,
                error.strerror or error,
            )

    def _is_kept(self) -> bool:
        try:
            check(self.path, self.key, self.entries)
        except (ModelFormatError, ModelNotFoundError):
            return False
        return True


def folder(home: Path) -> Path:
    return home / "packed"


def kept_packs(home: Path) -> list[KeptPack]:
    """The files of the cache, the last used first."""
    return _files(folder(home))


def remove_damaged(home: Path, fingerprint: str) -> list[KeptPack]:
    """Read all that is kept of a model, and remove what is not as it was written."""
    damaged = []
    for each in kept_packs(home):
        # What others wrote for themselves alone is not mapped here either.
        with contextlib.suppress(PermissionError, FileNotFoundError):
            if each.fingerprint == fingerprint and not is_sound(each.path):
                damaged.append(each)
    for each in damaged:
        each.path.unlink(missing_ok=True)
    return damaged


def evict(packed: Path, *, keep: Path) -> None:
    """Remove files, the longest unused first, until all that are left are within the limit."""
    left = LIMIT
    for each in sorted(_files(packed), key=lambda each: (each.path != keep, -each.used)):
        left -= each.nbytes
        if left < 0 and each.path != keep:
            with contextlib.suppress(OSError):  # of others, in their folder
                each.path.unlink(missing_ok=True)
            left += each.nbytes


def _files(packed: Path) -> list[KeptPack]:
    found = []
    for path in packed.glob(f"[!.]*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # removed meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append(KeptPack(path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda each: (-each.used, each.path))


def _remove_stale(packed: Path) -> None:
    """What writers that were killed left beside."""
    for path in packed.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if _is_nobodys(path):
                path.unlink()


def _is_nobodys(path: Path) -> bool:
    """Whether no writer has it: one that waits for requests to end may do so for hours."""
    with path.open("rb") as file:
        age = time.time() - os.fstat(file.fileno()).st_mtime
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # no locks here
            return age > _STALE
    return age > _MOMENT
