"""Safetensors file: a mapped file of named tensors, and its checked header.

The format: the header's length in 8 bytes, the header as JSON (name -> dtype, shape and the bytes
from and to, counted from the header's end), then the tensors. Knows one file; which files make a
model is `hf.tensors`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.values import is_whole
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.hf.json_fields import parse_object, shown_json
from octavo.weights.mapped_file import MappedFile

_TYPES: Mapping[str, GGMLType] = MappingProxyType(
    {"F32": GGMLType.F32, "F16": GGMLType.F16, "BF16": GGMLType.BF16}
)
_BYTES = "U8"
_LENGTH = 8  # bytes before the header
_MOST_DIMS = 4


@dataclass(frozen=True, slots=True)
class ByteTensor:
    """A tensor of bytes, which mean something only beside others."""

    name: str
    shape: tuple[int, ...]
    offset: int  # from the start of the file
    nbytes: int
    file: str

    @property
    def place(self) -> str:
        """The tensor in a message."""
        return f"tensor {self.name!r} of {self.file} at offset {self.offset}"


class SafetensorsFile(MappedFile):
    """An open file; a context manager. `tensors` by name, in the order of their bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, kind="a safetensors file")
        try:
            self.tensors = self._read_header()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> dict[str, TensorInfo | ByteTensor]:
        size = len(self.mapping)
        length = int.from_bytes(self.mapping[:_LENGTH], "little")
        if size < _LENGTH or length > size - _LENGTH:
            raise ModelFormatError(
                f"{self.path}: its header has {length:,} bytes by the first 8 of the file, which "
                f"has {size:,} in all: no safetensors file, or cut off"
            )
        start = _LENGTH + length
        header = parse_object(self.mapping[_LENGTH:start], f"header of {self.path}")
        header.pop("__metadata__", None)
        infos = [self._tensor(name, entry, start) for name, entry in header.items()]
        infos.sort(key=lambda info: (info.offset, info.nbytes))
        for before, info in pairwise(infos):
            if before.offset + before.nbytes > info.offset:
                raise ModelFormatError(
                    f"{self.path}: tensors {before.name!r} and {info.name!r} overlap at offset "
                    f"{info.offset}"
                )
        return {info.name: info for info in infos}

    def _tensor(self, name: str, entry: Any, start: int) -> TensorInfo | ByteTensor:
        place = f"{self.path}: tensor {name!r}"
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if all(
                is_whole(number) and number >= 0 for number in (*shape, begin, end)
            ):
                pass
            case _:
                raise ModelFormatError(
                    f"{place}: expected dtype, shape and two data_offsets, found "
                    f"{shown_json(entry)}"
                )
        type = _TYPES.get(dtype)
        if type is None and dtype != _BYTES:
            raise UnsupportedModelError(f"{place} is of type {dtype}: F32, F16 and BF16 are read")
        if len(shape) > _MOST_DIMS:
            raise ModelFormatError(f"{place}: expected at most {_MOST_DIMS} dimensions: {shape}")
        there = len(self.mapping) - start
        if not begin <= end <= there:
            raise ModelFormatError(
                f"{place}: bytes {begin:,} to {end:,}, but the file has {there:,} after its header"
            )
        nbytes = prod(shape) * (1 if type is None else type.block_bytes)
        if end - begin != nbytes:
            raise ModelFormatError(
                f"{place}: {dtype} of shape {tuple(shape)} is {nbytes:,} bytes, found "
                f"{end - begin:,}"
            )
        where = start + begin, nbytes, self.path.name
        if type is None:
            return ByteTensor(name, tuple(shape), *where)
        return TensorInfo(name, tuple(shape), type, *where)
