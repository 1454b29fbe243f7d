"""The parts of a GGUF file by their names: `NAME-00001-of-00003.gguf`, as llama.cpp splits one.

Knows names only: whether the files are there, and agree, is `gguf_parts`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    number: int  # from 1
    count: int
    stem: str


def place_of(path: Path) -> Place:
    """Which part the name says that the file is; a name that says nothing is one whole file's."""
    match = _PART_NAME.fullmatch(path.name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return Place(1, 1, "")
    return Place(int(match[2]), int(match[3]), match[1])


def part_paths(path: Path) -> list[Path]:
    """All parts of the model that `path` is one of, in order; of a whole file, itself."""
    place = place_of(path)
    if place.count == 1:
        return [path]
    every = range(1, place.count + 1)
    return [path.with_name(f"{place.stem}-{i:05d}-of-{place.count:05d}.gguf") for i in every]
