"""A file of packed weights: what packing a model gave, to be mapped in place of packing it again.

    head      magic, version, length and SHA-256 of the table
    table     JSON: the key of what was packed, the model it was, each weight's name, format, shape
              and place
    weights   each at a multiple of 64 bytes, as the kernels read them
    end       magic, SHA-256 of the weights

Opening checks head, table, size and end, so that a file that is cut, foreign or of another packing
is refused; the weights themselves are only read by `is_sound`, which takes as long as reading them.
Knows no folder, and not what the key is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from octavo.batch import FloatArray
from octavo.errors import ModelFormatError
from octavo.kernels import native
from octavo.program.ops import WeightSpec
from octavo.weights.huge_pages import HUGE, populated
from octavo.weights.mapped_file import MappedFile
from octavo.weights.model_weights import ModelWeights

_HEAD, _END = struct.Struct("<16sII32s"), struct.Struct("<16s32s")
_MAGIC, _END_MAGIC = b"octavo packed\r\n\0", b"end of packed\r\n\0"
_VERSION = 1  # of this file's own form
_ALIGN, _PAGE = 64, HUGE
_KIND = "a file of packed weights"
_VECTOR = ""  # the format of what is float32 and not packed
SLICE = 8 << 20  # bytes that are written, or read, at once: some milliseconds

Bytes = npt.NDArray[np.uint8]


class Entry(NamedTuple):
    """A weight in the file."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int  # from where the weights begin
    nbytes: int


def layout(specs: Mapping[str, WeightSpec], formats: Mapping[str, str]) -> list[Entry]:
    """Where each weight lies: the matrices, which have formats, and the vectors."""
    entries, offset = [], 0
    for name, spec in specs.items():
        format = formats.get(name, _VECTOR)
        nbytes = 4 * prod(spec.shape) if format == _VECTOR else _packed_nbytes(spec, format)
        entries.append(Entry(name, format, spec.shape, offset, nbytes))
        offset += _up(nbytes, _ALIGN)
    return entries


def file_bytes(key: str, model: str, entries: list[Entry]) -> int:
    """How long the file is."""
    begin = _begin(_table(key, model, entries))
    return begin + _weight_bytes(entries) + _END.size


def write_packed(
    file: BinaryIO,
    key: str,
    model: str,
    entries: list[Entry],
    weights: ModelWeights,
    before_slice: Callable[[], None],
) -> None:
    """Write the weights of a model, in slices; `before_slice` may wait, and may raise."""
    table = _table(key, model, entries)
    head = _HEAD.pack(_MAGIC, _VERSION, len(table), hashlib.sha256(table).digest())
    begin, content = _begin(table), hashlib.sha256()
    file.write((head + table).ljust(begin, b"\0"))
    for each in _slices(begin, _pieces(entries, weights)):
        before_slice()
        content.update(each)
        file.write(each)
    file.write(_END.pack(_END_MAGIC, content.digest()))


def open_packed(path: Path, key: str, entries: list[Entry]) -> ModelWeights:
    """Map the weights: shared by all who do, read-only, gone with the last array of them; where
    that would be slower they are copied. Raises
    ModelFormatError if they are not these, ModelNotFoundError if the file cannot be read."""
    file, begin = _open(path, key, entries)
    whole, mapped = populated(file.mapping)
    matrices: dict[str, native.PackedWeight] = {}
    vectors: dict[str, FloatArray] = {}
    for name, format, shape, offset, nbytes in entries:
        data = whole[begin + offset : begin + offset + nbytes]
        if format == _VECTOR:
            vectors[name] = data.view(np.float32).reshape(shape)
        else:
            rows, cols = shape
            matrices[name] = native.PackedWeight(data, rows, cols, format)
    return ModelWeights(matrices, vectors, mapped)


def check(path: Path, key: str, entries: list[Entry]) -> None:
    """Raise what `open_packed` would."""
    _open(path, key, entries)


def model_in(path: Path) -> str:
    """The model that a file says it is of. Raises as `open_packed`."""
    table, _ = _read_table(MappedFile(path, kind=_KIND))
    return str(table.get("model"))


def is_sound(path: Path) -> bool:
    """Whether the weights are those that were written: all are read. False too for what is no such
    file."""
    try:
        with path.open("rb") as file:
            magic, _, length, _ = _HEAD.unpack(file.read(_HEAD.size))
            left = file.seek(0, os.SEEK_END) - _END.size - _up(_HEAD.size + length, _PAGE)
            if magic != _MAGIC or left < 0:
                return False
            file.seek(_up(_HEAD.size + length, _PAGE))
            content = hashlib.sha256()
            while left:
                piece = file.read(min(left, SLICE))
                content.update(piece)
                left -= len(piece)
            return file.read() == _END.pack(_END_MAGIC, content.digest())
    except struct.error:
        return False


def _table(key: str, model: str, entries: list[Entry]) -> bytes:
    return json.dumps({"key": key, "model": model, "weights": entries}).encode()


def _begin(table: bytes) -> int:
    """Where the weights begin."""
    return _up(_HEAD.size + len(table), _PAGE)


def _weight_bytes(entries: list[Entry]) -> int:
    return max((_up(e.offset + e.nbytes, _ALIGN) for e in entries), default=0)


def _pieces(entries: list[Entry], weights: ModelWeights) -> Iterator[memoryview]:
    """The weights one after the other, with what aligns them."""
    for name, format, _, _, nbytes in entries:
        data: Bytes
        if format == _VECTOR:
            data = np.ascontiguousarray(weights.vectors[name]).reshape(-1).view(np.uint8)
        else:
            data = weights.matrices[name].view()
        assert len(data) == nbytes
        yield data.data
        yield memoryview(bytes(-nbytes % _ALIGN))


def _slices(begin: int, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
    """Cut the pieces into slices that end at whole huge pages of the file, the first of which
    begins at `begin`: what is written so, the system keeps in such pages, and maps in them."""
    buffer, filled = memoryview(bytearray(SLICE)), 0
    room = SLICE - begin % SLICE
    for piece in pieces:
        while len(piece):
            count = min(room - filled, len(piece))
            buffer[filled : filled + count] = piece[:count]
            piece, filled = piece[count:], filled + count
            if filled == room:
                yield buffer[:filled]
                room, filled = SLICE, 0
    yield buffer[:filled]


def _open(path: Path, key: str, entries: list[Entry]) -> tuple[MappedFile, int]:
    """The file, and where its weights begin."""
    file = MappedFile(path, kind=_KIND)
    table, begin = _read_table(file)
    if table.get("key") != key or table.get("weights") != json.loads(json.dumps(entries)):
        raise ModelFormatError(f"{path}: is of another model or packing")
    _check_end(file, begin + _weight_bytes(entries))
    return file, begin


def _read_table(file: MappedFile) -> tuple[dict[str, object], int]:
    """The table, and where the weights begin."""
    whole = len(file.mapping)
    if whole < _HEAD.size:
        raise ModelFormatError(f"{file.path}: {whole} bytes are no file of packed weights")
    magic, version, length, digest = _HEAD.unpack(file.mapping[: _HEAD.size])
    if magic != _MAGIC or version != _VERSION:
        raise ModelFormatError(f"{file.path}: expected packed weights of version {_VERSION}")
    table = file.mapping[_HEAD.size : _HEAD.size + length]
    if hashlib.sha256(table).digest() != digest:
        raise ModelFormatError(f"{file.path}: its table is damaged")
    try:
        found = json.loads(table)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ModelFormatError(f"{file.path}: its table is damaged")
    return found, _begin(table)


def _check_end(file: MappedFile, end: int) -> None:
    whole, expected = len(file.mapping), end + _END.size
    if whole != expected:
        raise ModelFormatError(f"{file.path}: expected {expected:,} bytes, found {whole:,}")
    if _END.unpack(file.mapping[end:])[0] != _END_MAGIC:
        raise ModelFormatError(f"{file.path}: its end is damaged")


def _packed_nbytes(spec: WeightSpec, format: str) -> int:
    rows, cols = spec.shape
    return native.packed_nbytes(rows, cols, format)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
