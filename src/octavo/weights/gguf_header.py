"""GGUF header: bytes in, checked metadata and tensor table out.

Every length is checked against the bytes that are left before anything is read or allocated, so a
corrupt file costs one ModelFormatError and never memory. Nothing returned points into the input.
Knows the container only: not what a key or a tensor means, nor where the bytes come from.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Never

import numpy as np

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.kernels import native
from octavo.values import is_whole
from octavo.weights.ggml_type import GGMLType, instead, type_name

MetadataValue = bool | int | float | str | list[str] | np.ndarray[Any, np.dtype[Any]]

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"),
    4: np.dtype("<u4"), 5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?"),
    10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}  # fmt: skip

# Far above any model known; they keep a corrupt count in a large file from filling memory.
_MAX_ENTRIES = 1 << 16
_MAX_ARRAY = 1 << 22
_MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]  # row-major: (N, K) for a matrix with K contiguous
    type: GGMLType
    offset: int  # from the start of the file
    nbytes: int
    file: str = ""  # of a model that has several: the name of this one

    @property
    def place(self) -> str:
        """The tensor in a message."""
        where = f" of {self.file}" if self.file else ""
        return f"tensor {self.name!r}{where} at offset {self.offset}"


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    metadata: dict[str, MetadataValue]
    tensors: dict[str, TensorInfo]
    notes: list[str]  # what is wrong in it and keeps nobody from reading it


def parse_header(data: mmap | bytes, source: str) -> Header:
    """Read and check the whole header of `data`; `source` names the file in messages."""
    cursor = _Cursor(data, source)
    version = _read_version(cursor)
    num_tensors = cursor.count("tensor count", item_bytes=24, limit=_MAX_ENTRIES)
    num_keys = cursor.count("metadata count", item_bytes=13, limit=_MAX_ENTRIES)
    metadata = _read_metadata(cursor, num_keys)
    alignment = _alignment(cursor, metadata)
    tensors = [_read_tensor(cursor, alignment) for _ in range(num_tensors)]
    base = -(-cursor.pos // alignment) * alignment
    return Header(version, metadata, _place_tensors(cursor, tensors, base), cursor.notes)


class _Cursor:
    """A position in the header that can only move over bytes that exist."""

    def __init__(self, data: mmap | bytes, source: str) -> None:
        self.data = data
        self.size = len(data)
        self.source = source
        self.pos = 0
        self.notes: list[str] = []

    def fail(self, what: str, expected: str, at: int | None = None) -> Never:
        offset = self.pos if at is None else at
        raise ModelFormatError(f"{self.source}: {what} at offset {offset}: expected {expected}")

    def take(self, nbytes: int, what: str) -> int:
        """Step over `nbytes` and return where they start."""
        start = self.pos
        if nbytes > self.size - start:
            self.fail(what, f"{nbytes} more bytes, the file ends at {self.size} (truncated?)")
        self.pos = start + nbytes
        return start

    def uint32(self, what: str) -> int:
        return int(_U32.unpack_from(self.data, self.take(4, what))[0])

    def uint64(self, what: str) -> int:
        return int(_U64.unpack_from(self.data, self.take(8, what))[0])

    def count(self, what: str, *, item_bytes: int, limit: int) -> int:
        """A count of items of at least `item_bytes` each."""
        at = self.pos
        value = self.uint64(what)
        most = min(limit, (self.size - self.pos) // item_bytes)
        if value > most:
            self.fail(what, f"at most {most} in a file of {self.size} bytes, found {value}", at)
        return value

    def string(self, what: str) -> str:
        return self.strings(1, what)[0]

    def strings(self, count: int, what: str, *, must_be_utf8: bool = True) -> list[str]:
        """`count` strings at once, by the core: vocabularies hold 10^5 of them.

        What need not be UTF-8 and is not is noted, and U+FFFD stands for what is wrong in it.
        """
        found: list[str] = []
        while True:
            left = count - len(found)
            more, self.pos = native.read_strings(np.frombuffer(self.data, "u1"), self.pos, left)
            found += more
            if len(found) == count:
                break
            at, where = self.pos, f"{what} (string {len(found)})"
            text = self._string_bytes(where)
            if must_be_utf8:
                self.fail(where, "valid UTF-8", at)
            note = f"{what} is not valid UTF-8: \ufffd stands for what is wrong in it"
            if note not in self.notes:
                self.notes.append(note)
            found.append(text.decode(errors="replace"))
        return found

    def _string_bytes(self, where: str) -> bytes:
        at = self.pos
        if self.size - at >= 8:
            self.pos = at + 8 + int(_U64.unpack_from(self.data, at)[0])
            if self.pos <= self.size:
                return self.data[at + 8 : self.pos]
        self.fail(where, f"a string that ends by {self.size}", at)

    def numbers(self, type_id: int, count: int, what: str) -> np.ndarray[Any, np.dtype[Any]]:
        dtype = _NUMBERS[type_id]
        start = self.take(count * dtype.itemsize, what)
        raw = self.data[start : self.pos]  # a copy: the mapping can be closed
        if type_id == _BOOL and raw.strip(b"\0\1"):
            self.fail(what, "booleans of 0 or 1", start)
        return np.frombuffer(raw, dtype)

    def value(self, what: str, *, must_be_utf8: bool) -> MetadataValue:
        at = self.pos
        type_id = self.uint32(what)
        if type_id == _STRING:
            return self.strings(1, what, must_be_utf8=must_be_utf8)[0]
        if type_id == _ARRAY:
            return self.array(what, must_be_utf8=must_be_utf8)
        if type_id not in _NUMBERS:
            self.fail(what, f"a value type of 0 to 12, found {type_id}", at)
        item: bool | int | float = self.numbers(type_id, 1, what)[0].item()
        return item

    def array(self, what: str, *, must_be_utf8: bool) -> MetadataValue:
        at = self.pos
        type_id = self.uint32(what)
        if type_id != _STRING and type_id not in _NUMBERS:
            self.fail(what, f"an array of numbers or strings, found value type {type_id}", at)
        item_bytes = 8 if type_id == _STRING else _NUMBERS[type_id].itemsize
        count = self.count(f"length of {what}", item_bytes=item_bytes, limit=_MAX_ARRAY)
        if type_id == _STRING:
            return self.strings(count, what, must_be_utf8=must_be_utf8)
        return self.numbers(type_id, count, what)


def _read_version(cursor: _Cursor) -> int:
    start = cursor.take(4, "magic")
    magic = cursor.data[start : start + 4]
    if magic != b"GGUF":
        cursor.fail("magic", f"b'GGUF', found {magic!r} (not a GGUF file)", start)
    version = cursor.uint32("version")
    if version not in (2, 3):
        if version.to_bytes(4, "little")[:3] == b"\0\0\0":
            raise UnsupportedModelError(
                f"{cursor.source} is big-endian; convert it to little-endian"
            )
        raise UnsupportedModelError(
            f"{cursor.source} is GGUF version {version}; Octavo reads 2 and 3: convert it anew"
        )
    return version


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for index in range(count):
        at = cursor.pos
        key = cursor.string(f"metadata key {index}")
        if key in metadata:
            cursor.fail(f"metadata key {key!r}", "each key once", at)
        # A vocabulary's bytes are text that is computed with; all else is for people to read.
        of_tokenizer = key.startswith("tokenizer.")
        metadata[key] = cursor.value(f"metadata {key!r}", must_be_utf8=of_tokenizer)
    return metadata


def _alignment(cursor: _Cursor, metadata: dict[str, MetadataValue]) -> int:
    value = metadata.get("general.alignment", 32)
    if not is_whole(value) or value < 8 or value % 8:
        cursor.fail("metadata 'general.alignment'", f"a multiple of 8, found {value!r}")
    return value


def _read_tensor(cursor: _Cursor, alignment: int) -> TensorInfo:
    """Read one row of the tensor table; `offset` still counts from the start of the data
    section."""
    at = cursor.pos
    name = cursor.string("tensor name")
    what = f"tensor {name!r}"
    num_dims = cursor.uint32(what)
    if not 1 <= num_dims <= _MAX_DIMS:
        cursor.fail(what, f"1 to {_MAX_DIMS} dimensions, found {num_dims}", at)
    dims = tuple(cursor.uint64(what) for _ in range(num_dims))  # the contiguous one first
    type_id = cursor.uint32(what)
    offset = cursor.uint64(what)
    try:
        type_ = GGMLType(type_id)
    except ValueError:
        raise UnsupportedModelError(
            f"{cursor.source}: {what} has type {type_name(type_id)}, which {instead(type_id)}"
        ) from None
    if 0 in dims or dims[0] % type_.block_values:
        cursor.fail(what, f"rows of whole {type_.name} blocks of {type_.block_values}: {dims}", at)
    if offset % alignment:
        cursor.fail(what, f"data at a multiple of {alignment}, found {offset}", at)
    nbytes = math.prod(dims) // type_.block_values * type_.block_bytes
    return TensorInfo(name, dims[::-1], type_, offset, nbytes)


def _place_tensors(cursor: _Cursor, infos: list[TensorInfo], base: int) -> dict[str, TensorInfo]:
    """Offsets from the start of the file; each tensor inside it, once, apart from the others."""
    tensors: dict[str, TensorInfo] = {}
    for info in infos:
        if info.name in tensors:
            cursor.fail(f"tensor {info.name!r}", "each tensor once")
        start = base + info.offset
        if start + info.nbytes > cursor.size:
            cursor.fail(
                f"tensor {info.name!r} {info.shape} {info.type.name}",
                f"{info.nbytes} bytes, the file ends at {cursor.size} (truncated?)",
                start,
            )
        tensors[info.name] = TensorInfo(info.name, info.shape, info.type, start, info.nbytes)
    end, before = base, "the header"
    for info in sorted(tensors.values(), key=lambda t: t.offset):
        if info.offset < end:
            cursor.fail(f"tensor {info.name!r}", f"no overlap with {before}", info.offset)
        end, before = info.offset + info.nbytes, f"tensor {info.name!r}"
    return tensors
