"""A GGUF file of the tests written again as several parts, as llama.cpp's gguf-split does it."""

from __future__ import annotations

import struct
from pathlib import Path

from octavo.weights.gguf import GGUFFile
from tests.weights.gguf_bytes import I32, entry, gguf, tensor, u64

U16 = 2


def split_entries(number: int, count: int, tensors: int) -> list[bytes]:
    """`number` counts from 0."""
    return [
        entry("split.no", U16, struct.pack("<H", number)),
        entry("split.count", U16, struct.pack("<H", count)),
        entry("split.tensors.count", I32, struct.pack("<i", tensors)),
    ]


def part_name(stem: str, number: int, count: int) -> str:
    """`number` counts from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}.gguf"


def write_parts(whole: Path, count: int) -> list[Path]:
    """Parts beside the file, tensors dealt out in turn; all metadata is in the first."""
    raw = whole.read_bytes()
    paths = [whole.with_name(part_name(whole.stem, i + 1, count)) for i in range(count)]
    with GGUFFile.open(whole) as file:
        infos = list(file.tensors.values())
        own = raw[24 : raw.index(u64(len(infos[0].name)) + infos[0].name.encode() + b"\2")]
        for number, path in enumerate(paths):
            table, data = [], b""
            for info in infos[number::count]:
                table.append(tensor(info.name, info.shape[::-1], info.type, len(data)))
                data += file.data(info.name).tobytes()
                data += b"\0" * (-len(data) % 32)
            entries = split_entries(number, count, len(infos))
            more = len(file.metadata) if number == 0 else 0
            path.write_bytes(
                gguf([own, *entries] if more else entries, table, data, num_entries=3 + more)
            )
    return paths
