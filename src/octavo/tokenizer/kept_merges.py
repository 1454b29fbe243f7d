"""The merges of an SPM vocabulary that has scores only: found once, and kept in a file.

To find those of 262,144 pieces takes half a second. A file is named by all that they depend on, has
a checksum of what is in it, and is replaced whole. Knows nothing of what merges are for.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from octavo.atomic_file import write_whole
from octavo.interrupts import is_interrupt
from octavo.tokenizer.spec import TokenizerSpec
from octavo.tokenizer.spm import Merges, merges_from_scores

_FORMAT = 3  # raise when the same spec gives other merges, or they are written in another way

logger = logging.getLogger(__name__)


def load(spec: TokenizerSpec, cache_dir: Path | None) -> Merges:
    """The merges, from `cache_dir` if an equal spec's were found before."""
    if cache_dir is None:
        return merges_from_scores(spec)
    path = kept_path(spec, cache_dir)
    kept = _read(path)
    if kept is not None:
        return kept
    merges = merges_from_scores(spec)
    try:
        write_whole(path, _with_checksum(merges.astype("<i4").tobytes()))
    except OSError as error:
        if is_interrupt(error):  # a TimeoutError is one too
            raise
        logger.warning(
            "cannot keep the tokenizer's merges in %s (%s): they are found anew each time; "
            "set OCTAVO_HOME to a directory that can be written",
            cache_dir,
            error.strerror or error,
        )
    return merges


def kept_path(spec: TokenizerSpec, cache_dir: Path) -> Path:
    """Where the merges of `spec` are kept, once they were found."""
    return cache_dir / f"{spec.digest(f'octavo merges {_FORMAT}')}.merges"


def _read(path: Path) -> Merges | None:
    """What was kept, None if missing or damaged. Line one is the checksum of the rest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        if is_interrupt(error):
            raise
        return None  # not there, or not ours to read: `load` says so when it cannot write either
    checksum, _, body = data.partition(b"\n")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        logger.warning("tokenizer cache file %s is damaged; finding its merges again", path)
        return None
    return np.frombuffer(body, "<i4").reshape(-1, 2)


def _with_checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body
