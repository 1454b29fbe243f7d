"""A file of packed weights: what was packed comes back bit for bit, and nothing else does."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octavo.errors import ModelFormatError, ModelNotFoundError
from octavo.kernels import native
from octavo.weights.model_header import ModelHeader
from octavo.weights.model_weights import ModelWeights, load_weights
from octavo.weights.packed_file import (
    Entry,
    check,
    file_bytes,
    is_sound,
    layout,
    model_in,
    open_packed,
    write_packed,
)
from octavo.weights.packed_formats import packed_formats

POOL = native.ThreadPool(2)
KEY, MODEL = "k" * 64, "/models/tiny.gguf"


def packed(header: ModelHeader) -> tuple[list[Entry], ModelWeights]:
    specs = header.program().weights()
    return layout(specs, packed_formats(header, specs, None)), load_weights(header, specs, POOL)


@pytest.fixture(autouse=True)
def huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file system has: mapped weights stay where they are."""
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)


@pytest.fixture
def entries(header: ModelHeader) -> list[Entry]:
    return packed(header)[0]


@pytest.fixture
def path(header: ModelHeader, tmp_path: Path) -> Path:
    entries, weights = packed(header)
    path = tmp_path / "tiny.packed"
    with path.open("wb") as file:
        write_packed(file, KEY, MODEL, entries, weights, lambda: None)
    return path


def assert_same(found: ModelWeights, expected: ModelWeights) -> None:
    assert found.matrices.keys() == expected.matrices.keys()
    assert found.vectors.keys() == expected.vectors.keys()
    for name, matrix in expected.matrices.items():
        other = found.matrices[name]
        assert (other.rows, other.cols, other.format) == (matrix.rows, matrix.cols, matrix.format)
        assert np.array_equal(other.view(), matrix.view())
    for name, vector in expected.vectors.items():
        assert np.array_equal(found.vectors[name], vector)


def test_weights_come_back_as_they_were_and_are_the_files(
    header: ModelHeader, path: Path, entries: list[Entry]
) -> None:
    expected = packed(header)[1]
    found = open_packed(path, KEY, entries)
    assert_same(found, expected)
    assert found.mapped
    assert not expected.mapped
    assert path.stat().st_size == file_bytes(KEY, MODEL, entries)
    assert model_in(path) == MODEL
    maps = Path("/proc/self/maps").read_text().splitlines()
    shared = [line.split()[1] for line in maps if str(path) in line]
    assert shared == ["r--s"]  # read-only, and shared with all processes that map it
    path.unlink()  # as eviction does
    assert_same(found, expected)
    del found
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_it_is_written_in_slices_that_end_at_whole_huge_pages(
    header: ModelHeader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.weights.packed_file.SLICE", 1 << 12)
    entries, weights = packed(header)
    ends: list[int] = []
    with (tmp_path / "out").open("wb") as file:
        write_packed(file, KEY, MODEL, entries, weights, lambda: ends.append(file.tell()))
    assert len(ends) > 50
    assert all(end % (1 << 12) == 0 for end in ends)
    assert_same(open_packed(tmp_path / "out", KEY, entries), weights)
    assert is_sound(tmp_path / "out")


def change(at: int) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        place = at % len(content)
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return changed


def with_table(table: bytes) -> bytes:
    digest = hashlib.sha256(table).digest()
    return struct.pack("<16sII32s", b"octavo packed\r\n\0", 1, len(table), digest) + table


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: b"", "expected a file of packed weights, file is empty"),
        (lambda content: content[:40], "40 bytes are no file of packed weights"),
        (lambda content: content[:1000], "its table is damaged"),
        (lambda content: content[:-1], "expected {0} bytes, found {1}"),
        (lambda content: content + b"\0", "expected {0} bytes, found {1}"),
        (lambda content: content[: 2 << 20], "expected {0} bytes, found {1}"),
        (change(0), "expected packed weights of version 1"),
        (change(16), "expected packed weights of version 1"),
        (change(24), "its table is damaged"),
        (change(90), "its table is damaged"),
        (change(-48), "its end is damaged"),
        (lambda content: content[:-48] + bytes(48), "its end is damaged"),
        (lambda content: with_table(b"[]"), "its table is damaged"),
        (lambda content: with_table(b"["), "its table is damaged"),
        (lambda content: with_table(b"[" * 200_000), "its table is damaged"),
        (lambda content: b"GGUF" * (len(content) // 4), "expected packed weights of version 1"),
    ],
)
def test_what_is_cut_foreign_or_damaged_is_refused_in_one_line(
    path: Path, entries: list[Entry], damage: Callable[[bytes], bytes], why: str
) -> None:
    content = path.read_bytes()
    damaged = damage(content)
    path.write_bytes(damaged)
    with pytest.raises(ModelFormatError) as error:
        open_packed(path, KEY, entries)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert why.format(f"{len(content):,}", f"{len(damaged):,}") in said
    with pytest.raises(ModelFormatError):
        check(path, KEY, entries)
    assert not is_sound(path) or len(damaged) == len(content)


def test_what_is_of_another_model_or_packing_is_refused(path: Path, entries: list[Entry]) -> None:
    others = [("j" * 64, entries), (KEY, entries[:-1]), (KEY, [])]
    others += [(KEY, [each._replace(format="BF16"), *entries[1:]]) for each in entries[:1]]
    for key, expected in others:
        with pytest.raises(ModelFormatError, match="is of another model or packing"):
            open_packed(path, key, expected)


def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, entries: list[Entry]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(ModelFormatError, match="not a regular file"):
            open_packed(tmp_path / name, KEY, entries)
    with pytest.raises(ModelNotFoundError):
        open_packed(tmp_path / "missing", KEY, entries)


@pytest.mark.parametrize("at", [2 << 20, -49, -48, -1])
def test_a_changed_bit_of_the_weights_is_found_by_reading_all(path: Path, at: int) -> None:
    assert is_sound(path)
    path.write_bytes(change(at)(path.read_bytes()))
    assert not is_sound(path)
