"""A file that is written to, grows, goes or is replaced is not what it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from octavo.errors import ModelFormatError
from octavo.weights.file_stamps import check_unchanged, stamps
from tests.ring import Ring, TooLateError, alarm

__all__ = ["alarm"]


@pytest.mark.parametrize("change", ["written to", "grown", "gone", "replaced", "come"])
def test_what_changes_is_noticed(change: str, tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"a file")
    seen, status = stamps([path, other]), path.stat()
    times = (status.st_atime_ns, status.st_mtime_ns)
    check_unchanged(seen)
    match change:
        case "written to":
            os.utime(path, ns=(times[0], times[1] + 1))
        case "grown":
            path.write_bytes(b"a file that grew")
            os.utime(path, ns=times)
        case "gone":
            path.unlink()
        case "replaced":
            (tmp_path / "new").write_bytes(b"a file")
            os.utime(tmp_path / "new", ns=times)
            (tmp_path / "new").replace(path)
        case "come":
            other.touch()
    named = other if change == "come" else path
    with pytest.raises(ModelFormatError) as refused:
        check_unchanged(seen)
    assert str(refused.value) == f"{named} changed while the model was loaded: load it again"


def test_a_time_out_is_no_change(alarm: None, tmp_path: Path) -> None:
    """Though TimeoutError is an OSError."""
    seen = stamps([tmp_path])
    with Ring(os, "stat"), pytest.raises(TooLateError):
        check_unchanged(seen)
