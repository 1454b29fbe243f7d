"""The journal: what was added is there after any kill, and what was torn is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import cast

import pytest

from octavo.batch_job.journal import Journal
from octavo.errors import UsageError

ORIGIN = {"model": "m", "kv_dtype": "f32"}
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def open_journal(path: Path, origin: dict[str, str] = ORIGIN, digest: str = "d") -> Journal:
    return Journal(path, origin, digest, clock=lambda: 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a journal with two results, left by a run that was killed."""
    journal = open_journal(tmp_path / "out.partial")
    journal.add(ONE, {"id": "one", "text": "zwölf\u2028"})
    journal.add(TWO, {"id": "two"})
    journal.close()
    return journal.path


def test_results_are_in_the_file_at_once_and_found_by_key_after_another_open(path: Path) -> None:
    journal = open_journal(path)
    assert (len(journal), ONE in journal, THREE in journal) == (2, True, False)
    assert not journal.input_changed
    assert journal.result(TWO) == {"id": "two"}
    assert journal.result(ONE) == {"id": "one", "text": "zwölf\u2028"}
    journal.add(THREE, {"id": "three"})
    assert path.read_text().count("\n") == 4  # a header and three results, nothing closed
    assert [journal.result(k)["id"] for k in (THREE, ONE)] == ["three", "one"]
    journal.close()
    with closing(open_journal(path)) as again:
        assert len(again) == 3


def test_wherever_a_kill_tears_it_the_whole_lines_before_are_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand of them take seconds
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with closing(open_journal(path)) as journal:
            assert len(journal) == max(0, sum(end <= cut for end in ends) - 1), cut
            journal.add(THREE, {"id": "three"})
        with closing(open_journal(path)) as again:
            assert (THREE in again, again.result(THREE)) == (True, {"id": "three"}), cut
            assert all(json.loads(line) for line in path.read_text().splitlines())
    # Zeros that a power cut left are cut off.
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100 + b"\n")
    open_journal(path).close()
    assert path.read_bytes() == whole


def test_results_of_another_origin_are_refused_by_name(path: Path) -> None:
    before = path.read_bytes()
    for origin, line in [
        ({**ORIGIN, "model": "n"}, "model = m, and this run has n"),
        ({"model": "m"}, "kv_dtype = f32, and this run has the default"),
        ({**ORIGIN, "context": "9"}, "context = the default, and this run has 9"),
    ]:
        with pytest.raises(UsageError, match=f"was begun with {line}: run with the same, or del"):
            open_journal(path, origin)
    assert path.read_bytes() == before


def test_a_changed_input_is_noticed_once(path: Path) -> None:
    for noticed in (True, False):
        with closing(open_journal(path, digest="e")) as journal:
            assert (journal.input_changed, len(journal)) == (noticed, 2)


@pytest.mark.parametrize("text", ["mine", '{"key": "00", "result": {}}\n', "[]\n", "\n"])
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.partial"
    path.write_text(text)
    with pytest.raises(UsageError, match="is no journal of a batch: move it away"):
        open_journal(path)
    assert path.read_text() == text


def test_one_run_at_a_time(path: Path) -> None:
    held = "is held by another run: wait for it, or choose another"
    with closing(open_journal(path)), pytest.raises(UsageError, match=held):
        open_journal(path)
    open_journal(path).close()
    empty = path.with_name("empty.partial")  # nothing to keep leaves no file
    open_journal(empty).close()
    assert not empty.exists()


def test_it_syncs_every_5_s_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([0.0, 1.0, 4.9, 5.0, 6.0, 10.0])
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = Journal(tmp_path / "out.partial", ORIGIN, "d", clock=lambda: next(times))
    counts = []
    for key in range(5):
        journal.add(bytes([key]) * 16, {})
        counts.append(len(synced))
    assert counts == [0, 0, 1, 1, 2]
    journal.close()
    assert len(synced) == 3


def test_half_a_line_that_a_full_disk_left_is_taken_back(path: Path) -> None:
    journal = open_journal(path)
    whole, real = path.read_bytes(), journal._file

    class FullDisk:
        """Takes ten bytes more."""

        room = 10

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written, self.room = real.write(data[: self.room]), 0
            return written

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    journal._file = cast(FileIO, FullDisk())
    with pytest.raises(OSError, match="No space left"):
        journal.add(THREE, {"id": "three"})
    assert path.read_bytes() == whole
    assert THREE not in journal
    real.close()
