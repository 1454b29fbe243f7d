"""Where a converted model comes to lie: what may be replaced, and a directory that appears whole.

Comes in: paths, and how many bytes are to be written. Knows nothing of what is in the files but
which a model directory has.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from shutil import disk_usage, rmtree

from octavo.atomic_file import sync_directory
from octavo.errors import ModelError, UsageError
from octavo.weights.hf.directory import CONFIG

_SPARE = 16 << 20  # bytes of the files beside the weights, and of the file system's own


def check_place(source: Path, to: Path, *, force: bool) -> None:
    """Raise UsageError for a place that is taken, or that what is converted lies in."""
    there = to.resolve()
    for each in (source, *(source.iterdir() if source.is_dir() else ())):
        here = each.resolve()  # files of a directory may be links
        if there == here or here in there.parents or there in here.parents:
            raise UsageError(f"{to} is, holds or lies in what is converted: name another directory")
    if to.is_symlink():
        raise UsageError(f"{to} is a link: name the directory itself")
    if not to.exists():
        return
    if not force:
        raise UsageError(f"{to} is there already: name another directory, or give --force")
    if not (to.is_dir() and (_is_model(to) or not any(to.iterdir()))):
        raise UsageError(
            f"{to} is no directory of a model's files alone: --force replaces nothing else"
        )


def _is_model(path: Path) -> bool:
    """Many a project has a config.json; one with folders in it holds more than a model."""
    found = [*path.iterdir()]
    has_weights = any(each.suffix == ".safetensors" for each in found)
    return (path / CONFIG).exists() and has_weights and not any(each.is_dir() for each in found)


def check_space(to: Path, needed: int) -> None:
    """Raise ModelError where the disk has less than `needed` bytes left, OSError if there is none
    to be asked."""
    free = disk_usage(to.resolve().parent).free
    if free < needed + _SPARE:
        raise ModelError(
            f"{to} cannot be written: it takes {needed:,} bytes, and the disk has {free:,} left"
        )


@contextlib.contextmanager
def taking_place(to: Path, *, force: bool) -> Iterator[Path]:
    """Give a directory beside `to` that is there when the block has ended, and gone if it raised;
    with `force` it takes the place of what is there.

    It has one name, so that the next conversion takes away what a killed one left, and puts back
    what that had moved out of its way, or replaces it. Raises UsageError where another process
    writes there.
    """
    place = to.resolve()  # "." has no name
    beside = place.with_name(f".{place.name}.converting")
    old = place.with_name(f".{place.name}.replaced")
    with _alone(beside, to):
        if place.exists():
            rmtree(old, ignore_errors=True)
        for left in beside.iterdir():
            left.unlink()
        try:
            yield beside
            for each in (*beside.iterdir(), beside):
                sync_directory(each)
            if force and place.exists():
                place.rename(old)
            beside.rename(place)
            sync_directory(place.parent)
        except BaseException:
            rmtree(beside, ignore_errors=True)
            raise
        finally:  # where it moved, its name may be that of the next conversion's
            if old.exists() and not place.exists():
                old.rename(place)
            rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _alone(beside: Path, to: Path) -> Iterator[None]:
    """Make the directory, and hold it: a killed process holds nothing."""
    beside.mkdir(exist_ok=True)
    descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), beside.stat())
        except (BlockingIOError, FileNotFoundError):  # the other one has it, or just moved it
            is_ours = False
        if not is_ours:
            raise UsageError(f"{to} is being written by another process")
        yield
    finally:
        os.close(descriptor)
