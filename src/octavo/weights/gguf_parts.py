"""A model in one GGUF file or in several parts of one: opened together, checked against each other.

Comes in: the path of any part. Parts are numbered by their names and by their metadata; the first
holds all other metadata. The two must agree, for to `part_names` the name alone says which files a
model is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError, ModelNotFoundError
from octavo.values import is_whole
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_header import MetadataValue, TensorInfo
from octavo.weights.gguf_keys import shown
from octavo.weights.mapped_file import OpenFiles
from octavo.weights.part_names import part_paths, place_of

_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


class GGUFParts(OpenFiles):
    """All open parts of a model; a context manager. `tensors` names the part where there are
    several."""

    def __init__(self, files: Sequence[GGUFFile], opened: contextlib.ExitStack) -> None:
        super().__init__(opened)
        self.files = files
        self.metadata: dict[str, MetadataValue] = files[0].metadata
        self.notes = [text for file in files for text in file.notes]
        self.tensors: dict[str, TensorInfo] = {}
        self._file_of: dict[str, GGUFFile] = {}
        for file in files:
            name = file.path.name if len(files) > 1 else ""
            for key, info in file.tensors.items():
                if key in self.tensors:
                    raise ModelFormatError(
                        f"{file.path}: tensor {key!r} is in {self.tensors[key].file} too: "
                        "expected each tensor in one part"
                    )
                self.tensors[key] = replace(info, file=name) if name else info
                self._file_of[key] = file

    @classmethod
    def open(cls, path: str | Path, before: GGUFParts | None = None) -> Self:
        """Map all parts and check their headers: of those that were open `before`, closed or not,
        only what changed since is read again. Raises ModelError."""
        path = Path(path)
        known = {file.path: file for file in before.files} if before is not None else {}
        with contextlib.ExitStack() as opened:
            given = opened.enter_context(GGUFFile.open(path, known.get(path)))
            _check_place(given)
            paths = part_paths(path)
            _check_all_there(path, paths)
            files = [
                given
                if each == path
                else opened.enter_context(GGUFFile.open(each, known.get(each)))
                for each in paths
            ]
            for file in files:
                _check_place(file)
            for file in files[1:]:  # comparing a vocabulary takes as long as reading it
                _check_agrees(files[0], file)
            parts = cls(files, opened)
            _check_tensor_count(parts)
            parts._opened = opened.pop_all()
        return parts

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, (nbytes,) uint8, read-only, in place: nothing is read yet."""
        return self._file_of[name].data(name)

    def drop(self, name: str) -> None:
        """Take the pages that hold only this tensor out of RSS; reading brings them back."""
        self._file_of[name].drop(name)


def _check_place(file: GGUFFile) -> None:
    """What a part's name says of its place is what its metadata says."""
    number, count = file.metadata.get(_NUMBER, 0), file.metadata.get(_COUNT, 1)
    if not is_whole(count) or not is_whole(number):
        found = f"{_NUMBER} {shown(number)}, {_COUNT} {shown(count)}"
        raise ModelFormatError(f"{file.path}: {found}: expected whole numbers")
    count = max(count, 1)  # a merged file has 0
    named = place_of(file.path)
    if (number + 1, count) == (named.number, named.count):
        return
    place = f"part {number + 1} of {count}" if count > 1 else "a whole model"
    if count > 1 and 0 <= number < count:
        expected = f"a name that ends in -{number + 1:05d}-of-{count:05d}.gguf"
    else:
        expected = f"{_NUMBER} {named.number - 1} and {_COUNT} {named.count}, or another name"
    raise ModelFormatError(
        f"{file.path} is {place} ({_NUMBER} {number}, {_COUNT} {count}): expected {expected}"
    )


def _check_all_there(path: Path, paths: Sequence[Path]) -> None:
    missing = [each.name for each in paths if not each.exists()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelNotFoundError(
            f"{path} is one of {len(paths)} parts: {', '.join(missing[:3])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} not beside it: fetch all parts"
        )


def _check_agrees(first: GGUFFile, file: GGUFFile) -> None:
    for key, value in file.metadata.items():
        if key != _NUMBER and key in first.metadata and not _same(value, first.metadata[key]):
            raise ModelFormatError(
                f"{file.path}: metadata {key!r} differs from {first.path.name}'s: expected parts "
                "of one model"
            )


def _same(a: MetadataValue, b: MetadataValue) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray) and a == b


def _check_tensor_count(parts: GGUFParts) -> None:
    expected = parts.metadata.get(_TENSORS)
    if len(parts.files) == 1 or expected is None:
        return
    if not is_whole(expected) or expected != len(parts.tensors):
        raise ModelFormatError(
            f"{parts.files[0].path}: the {len(parts.files)} parts have {len(parts.tensors)} "
            f"tensors: expected {shown(expected)} ({_TENSORS})"
        )
