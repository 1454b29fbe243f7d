"""The pack cache as it is written: beside other writers, in little room, and what goes first."""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from octavo.weights import pack_cache
from octavo.weights.model_header import ModelHeader
from octavo.weights.pack_cache import kept_packs
from tests.weights.packs import file_of, keep, used, weights_of
from tests.weights.test_packed_file import assert_same

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(autouse=True)
def huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)


def test_what_another_process_kept_meanwhile_is_not_written_twice(
    header: ModelHeader, home: Path
) -> None:
    file = keep(header, home)
    inode = file.path.stat().st_ino
    keep(header, home)
    assert file.path.stat().st_ino == inode


def test_two_that_write_at_once_leave_one_whole_file(header: ModelHeader, home: Path) -> None:
    file, weights, both = file_of(header, home), weights_of(header), threading.Barrier(2)
    waits = threading.local()

    def meet() -> None:
        """Before each of the first two slices, when neither is in place."""
        waits.count = getattr(waits, "count", 0) + 1
        if waits.count <= 2:
            both.wait(60)

    threads = [threading.Thread(target=file.write, args=(weights, meet)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.name for each in (home / "packed").iterdir()] == [file.path.name]
    found = file.read()
    assert found is not None
    assert_same(found, weights)


class BrokenOff(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_writing_that_is_broken_off_leaves_nothing(
    header: ModelHeader, home: Path, after: int
) -> None:
    calls = []

    def break_off() -> None:
        calls.append(1)
        if len(calls) == after:
            raise BrokenOff

    file = file_of(header, home)
    with pytest.raises(BrokenOff):
        file.write(weights_of(header), break_off)
    assert [*home.rglob("*.packed"), *home.rglob("*.tmp")] == []


def test_a_disk_with_little_room_gets_nothing_and_loses_nothing(
    header: ModelHeader, home: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    other = keep(header, home, "ef" * 32)
    size = other.path.stat().st_size
    least = size + pack_cache.SPARE
    for free, kept in ((least - 1, 1), (least, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(0, 0, free))
        keep(header, home)
        assert len(kept_packs(home)) == kept
    assert caplog.messages == [
        f"the packed weights are not kept in {home / 'packed'}: they take {size:,} bytes, and "
        f"{least - 1:,} are free, of which {pack_cache.SPARE:,} stay so: free space there, or say "
        "--no-pack-cache"
    ]


def test_what_is_larger_than_all_may_be_is_not_kept_however_free_the_disk(
    header: ModelHeader, home: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(pack_cache, "LIMIT", 1000)
    keep(header, home)
    assert kept_packs(home) == []
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith(
        "and all that are kept at most 1,000: --no-pack-cache leaves this out"
    )


def test_what_a_killed_writer_left_goes_at_the_next_use_but_not_what_one_holds(
    header: ModelHeader, home: Path
) -> None:
    """The file that a killed server left was as large as its weights, and stayed for good if the
    next start had written its own within the hour."""
    file = keep(header, home)
    killed, held, new = (home / "packed" / f".{name}.tmp" for name in ("killed", "held", "new"))
    for path, ago in ((killed, 60), (held, 100_000), (new, 0)):
        path.write_bytes(b"half")
        used(path, ago)
    with held.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert file.read() is not None
    assert [path.exists() for path in (killed, held, new)] == [False, True, True]
    file.path.unlink()
    another = file_of(header, home, "cd" * 32)
    seen: list[list[Path]] = []

    def another_starts() -> None:
        """While this writer waits, for longer than any age."""
        mine = [path for path in (home / "packed").glob(".*.tmp") if path not in (held, new)]
        for path in mine:
            used(path, 100_000)
        assert another.read() is None
        seen.append([path for path in mine if path.exists()])

    file.write(weights_of(header), another_starts)
    assert [len(each) for each in seen] == [0, 1]
    assert file.path.exists()
    assert not held.exists()


def test_the_longest_unused_go_first_and_a_writer_that_was_killed_is_cleared_away(
    header: ModelHeader, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shas = [f"{i}{i}" * 32 for i in range(1, 5)]
    files = [keep(header, home, sha) for sha in shas[:3]]
    size = files[0].path.stat().st_size
    for file, ago in zip(files, (100, 300, 200), strict=True):
        used(file.path, ago)
    assert files[1].read() is not None  # now it is the last used
    killed, alive = (home / "packed" / f".{name}.tmp" for name in ("killed", "alive"))
    killed.write_bytes(b"")
    alive.write_bytes(b"")
    used(killed, 4000)
    monkeypatch.setattr(pack_cache, "LIMIT", 3 * size)
    keep(header, home, shas[3])
    assert {each.fingerprint for each in kept_packs(home)} == {shas[0], shas[1], shas[3]}
    assert not killed.exists()
    assert alive.exists()
    monkeypatch.setattr(pack_cache, "LIMIT", size - 1)  # what is larger than all is not kept
    files[2].write(weights_of(header), lambda: None)
    assert not files[2].path.exists()
