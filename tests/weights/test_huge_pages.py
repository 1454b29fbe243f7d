"""Huge pages under a mapping: where there are too few, the bytes are copied into some."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from octavo.weights import huge_pages
from octavo.weights.huge_pages import HUGE, populated, share_of_huge

SIZE = 3 * HUGE + 5000


@pytest.fixture
def content(rng: np.random.Generator) -> bytes:
    return rng.integers(0, 256, SIZE, dtype=np.uint8).tobytes()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def mapping(tmp_path: Path, content: bytes) -> mmap.mmap:
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def test_bytes_in_huge_pages_stay_where_they_are(
    mapping: mmap.mmap, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "share_of_huge", lambda data: 0.75)
    data, mapped = populated(mapping)
    assert (data.tobytes(), mapped) == (content, True)
    assert data.ctypes.data == np.frombuffer(mapping, np.uint8).ctypes.data


@pytest.mark.parametrize("can", [True, False])
def test_bytes_in_small_pages_are_copied_where_the_system_has_huge_ones(
    mapping: mmap.mmap, content: bytes, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    monkeypatch.setattr(huge_pages, "share_of_huge", lambda data: 0.74)
    monkeypatch.setattr(huge_pages, "can_have_huge", lambda: can)
    monkeypatch.setattr(huge_pages, "STRIP", HUGE)  # several
    data, mapped = populated(mapping)
    assert (data.tobytes(), mapped) == (content, not can)
    assert not data.flags.writeable
    if can:
        assert data.ctypes.data % HUGE == 0
        assert data.ctypes.data != np.frombuffer(mapping, np.uint8).ctypes.data


def test_a_file_below_one_huge_page_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").write_bytes(b"small")
    monkeypatch.setattr(huge_pages, "share_of_huge", lambda data: 0.0)
    with (tmp_path / "small").open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert populated(mapping)[1]


def test_the_share_is_read_from_what_the_system_says_of_this_mapping(
    mapping: mmap.mmap, tmp_path: Path
) -> None:
    data = np.frombuffer(mapping, np.uint8)
    other = "7f0000000000-7f0000001000 r--p 00000000 00:00 0\nRss: 4 kB\nFilePmdMapped:  9 kB\n"
    own = (
        f"{data.ctypes.data:x}-ffff r--s 00000000 00:00 0 /f\nRss: 4 kB\nFilePmdMapped:  4096 kB\n"
    )
    smaps = tmp_path / "smaps"
    smaps.write_text(other + own + other)
    assert share_of_huge(data, smaps) == 4096 * 1024 / SIZE
    smaps.write_text(other)
    assert share_of_huge(data, smaps) == 1  # nothing is known: nothing is copied
    assert share_of_huge(data, tmp_path / "missing") == 1
    assert 0 <= share_of_huge(data) <= 1
