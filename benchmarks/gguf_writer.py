"""GGUF files, written: metadata and tensors in, one file out, a tensor in memory at a time.

Knows the container: version 3, offsets, alignment. Knows no key and no model. What makes a tensor's
bytes is asked for them when it is their turn, so a file may be larger than memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from octavo.atomic_file import writing_whole
from octavo.weights.ggml_type import GGMLType

ALIGNMENT = 32

Value = bool | int | float | str | Sequence[str] | Sequence[int]
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # row-major: the last dimension is contiguous
    type: GGMLType
    chunks: Callable[[], Iterable[bytes]]  # its bytes, in order

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.type.block_values * self.type.block_bytes


def file_size(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> int:
    return len(_head(metadata, tensors)) + sum(_padded(each.nbytes) for each in tensors)


def write(path: Path, metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> None:
    """Put the file at `path` when it is whole, and nothing there before."""
    with writing_whole(path) as file:
        file.write(_head(metadata, tensors))
        for tensor in tensors:
            _write_tensor(file, tensor)


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    written = 0
    for chunk in tensor.chunks():
        written += file.write(chunk)
    assert written == tensor.nbytes, f"{tensor.name}: {written} bytes for {tensor.nbytes}"
    file.write(bytes(_padded(written) - written))


def _head(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    parts += [_string(key) + _typed(value) for key, value in metadata.items()]
    offset = 0
    for each in tensors:
        dims = each.shape[::-1]  # in the file the contiguous one is first
        parts.append(_string(each.name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
        parts.append(struct.pack("<IQ", each.type, offset))
        offset += _padded(each.nbytes)
    head = b"".join(parts)
    return head + bytes(_padded(len(head)) - len(head))


def _typed(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    texts = [each for each in value if isinstance(each, str)]
    if texts:
        assert len(texts) == len(value), "an array is of one type"
        head = struct.pack("<IIQ", _ARRAY, _STRING, len(texts))
        return head + b"".join(map(_string, texts))
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
