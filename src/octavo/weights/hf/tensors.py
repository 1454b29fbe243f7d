"""The tensors of a model directory: one safetensors file, or an index and its shards.

Goes out: tensors by the program's names, each in the one file that has it. A tensor without a place
in the program keeps its own name, so that it is refused there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.hf.families import is_leftover
from octavo.weights.hf.family import Family
from octavo.weights.hf.json_fields import Fields, read_json, shown_json
from octavo.weights.hf.mxfp4 import as_blocks, joined
from octavo.weights.mapped_file import OpenFiles
from octavo.weights.safetensors import ByteTensor, SafetensorsFile

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_VOCABULARY = ("token_embd.weight", "output.weight")  # a row for each token


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a directory, its index with them. Raises ModelFormatError,
    UnsupportedModelError."""
    if not _has_index(path):
        return [path / WHOLE]
    return [path / INDEX, *(path / name for name in sorted({*_index(path).values()}))]


def _has_index(path: Path) -> bool:
    whole, index = (path / WHOLE).exists(), (path / INDEX).exists()
    if whole and index:
        raise ModelFormatError(
            f"{path} has {WHOLE} and {INDEX}: one is of another model; take it away"
        )
    if not whole and not index:
        raise _without_weights(path)
    return index


def _without_weights(path: Path) -> UnsupportedModelError:
    if (path / "adapter_config.json").exists():
        return UnsupportedModelError(f"{path} is a LoRA adapter: Octavo runs whole models")
    if any(path.glob("pytorch_model*.bin*")):
        return UnsupportedModelError(
            f"{path} has its weights in pytorch_model.bin: convert them to safetensors"
        )
    return UnsupportedModelError(f"{path} has no {WHOLE} and no {INDEX}")


def _index(path: Path) -> dict[str, str]:
    """Tensor -> file, as the index says."""
    where = path / INDEX
    found = Fields(str(where), read_json(where)).fields("weight_map").values
    for tensor, name in found.items():
        if not _is_shard(name):
            raise ModelFormatError(
                f"{where}: tensor {tensor!r} is in {shown_json(name)}: expected a safetensors file "
                "of this directory"
            )
    if not found:
        raise ModelFormatError(f"{where}: weight_map is empty")
    return dict(found)


def _is_shard(name: object) -> bool:
    """Not a path out of the directory, nor text that is no file's name."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return False
    return "/" not in name and name.isprintable()


class DirectoryTensors(OpenFiles):
    """Open files; a context manager."""

    def __init__(self, path: Path, family: Family, *, rows: int, tied_head: bool) -> None:
        """The vocabulary has so many rows."""
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self._pairs: dict[str, tuple[ByteTensor, ByteTensor]] = {}  # by the program's names
        self._files: dict[str, SafetensorsFile] = {}
        with contextlib.ExitStack() as opened:
            self._name(*joined(self._open(opened)), family, tied_head=tied_head)
            self._check_vocabulary(rows)
            super().__init__(opened.pop_all())

    def _open(self, opened: contextlib.ExitStack) -> dict[str, TensorInfo | ByteTensor]:
        found: dict[str, TensorInfo | ByteTensor] = {}
        index = _index(self.path) if _has_index(self.path) else {}
        for file_name in sorted({*index.values()}) or [WHOLE]:
            file = opened.enter_context(SafetensorsFile(self.path / file_name))
            self._files[file_name] = file
            for name, info in file.tensors.items():
                if name in found:
                    both = f"{found[name].file} and {file_name}"
                    raise ModelFormatError(f"{self.path}: tensor {name!r} is in {both}")
                found[name] = info
        for name, file_name in index.items():
            if name not in self._files[file_name].tensors:
                where = self.path / file_name
                raise ModelFormatError(
                    f"{where}: tensor {name!r} is missing, which {INDEX} says it has"
                )
        for name, info in found.items():
            if index and name not in index:
                raise ModelFormatError(
                    f"{self.path / info.file}: tensor {name!r} is not in {INDEX}"
                )
        return found

    def _name(
        self,
        tensors: Mapping[str, TensorInfo],
        pairs: Mapping[str, tuple[ByteTensor, ByteTensor]],
        family: Family,
        *,
        tied_head: bool,
    ) -> None:
        """Set `tensors` and `_pairs`, whose names are the program's."""
        found: dict[str, TensorInfo] = {}
        for name, info in tensors.items():
            if is_leftover(name) or name.startswith(family.left_out):
                continue
            ours = family.our_name(name) or f"without a place: {name}"
            if ours in found:
                raise ModelFormatError(
                    f"{self.path}: {found[ours].name!r} and {name!r} are one tensor: take one away"
                )
            found[ours] = info
            if name in pairs:
                self._pairs[ours] = pairs[name]
        embedding, head = (found.get(name) for name in _VOCABULARY)
        if tied_head and head is not None and embedding is not None:
            if self._bytes(head).data != self._bytes(embedding).data:
                raise ModelFormatError(
                    f"{self.path}: {head.place} differs from {embedding.name!r}, but config.json: "
                    "tie_word_embeddings is true: one is wrong"
                )
            del found["output.weight"]  # older versions saved it twice
        self.tensors = found

    def _check_vocabulary(self, rows: int) -> None:
        for name in _VOCABULARY:
            info = self.tensors.get(name)
            if info is not None and (len(info.shape) != 2 or info.shape[0] != rows):
                raise ModelFormatError(
                    f"{self.path}: {info.place}: shape {info.shape}, but config.json: vocab_size "
                    f"is {rows}"
                )

    def _bytes(self, info: TensorInfo | ByteTensor) -> npt.NDArray[np.uint8]:
        return self._files[info.file].bytes_at(info.offset, info.nbytes)

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, (nbytes,) uint8, read-only, in place: nothing is read yet. A pair's
        are read and put in order."""
        if name in self._pairs:
            return as_blocks(*map(self._bytes, self._pairs[name]))
        return self._bytes(self.tensors[name])

    def drop(self, name: str) -> None:
        """Take the pages that hold only this tensor out of RSS; reading brings them back."""
        for info in self._pairs.get(name) or (self.tensors[name],):
            self._files[info.file].drop_at(info.offset, info.nbytes)
