"""Files that are whole or not there, and which of them survive a power cut."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.atomic_file import write_durably, write_whole, writing_whole


def broken_off() -> Iterator[bytes]:
    yield b"two"
    raise ZeroDivisionError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_put_in_place_of_the_old_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / ("cache" * 40)
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_cannot_be_moved_leaves_the_old_content_and_nothing_beside_it(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache"
    write_whole(path, b"one")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(error)):
        write_whole(path, b"two")
    with pytest.raises(type(error)), write_durably(path) as file:
        file.write(b"three")
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["cache"]


def test_a_durable_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out"
    (tmp_path / ".out.tmp").write_bytes(b"much that a killed writer left")
    with write_durably(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(ZeroDivisionError), write_durably(path) as file:
        file.writelines(broken_off())
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["out"]


def test_a_durable_file_is_synced_before_it_is_moved_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, done = tmp_path / "out", []

    def sync(descriptor: int) -> None:
        what = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append((what, os.fstat(descriptor).st_size if what == "file" else 0, path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    with write_durably(path) as file:
        file.write(b"one")
    assert done == [("file", 3, False), ("folder", 0, True)]
    done.clear()
    write_whole(path, b"two")
    assert done == []


def test_what_is_written_piece_by_piece_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out"
    with writing_whole(path) as file:
        file.write(b"one")
        assert not path.exists()
        with writing_whole(path) as other:  # of several that write at once the last one wins
            other.write(b"two")
        assert path.read_bytes() == b"two"
    assert path.read_bytes() == b"one"
    with pytest.raises(ZeroDivisionError), writing_whole(path) as file:
        file.write(bytes([1 // 0]))
    assert path.read_bytes() == b"one"
    assert names(path.parent) == ["out"]
