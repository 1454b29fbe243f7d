"""Fingerprints of model files: computed when the file is new or changed, else remembered."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import octavo
from octavo.errors import ModelFormatError, ModelNotFoundError
from octavo.weights import fingerprint as module
from octavo.weights.fingerprint import (
    files_of_model,
    fingerprint,
    forget,
    known_fingerprint,
)

LONG_AGO = 1_600_000_000_000_000_000  # ns: far outside the tick of any clock
FALSE = "f" * 64  # put into the store, it shows whether an answer came from there
DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a.gguf"
    write_model(path, b"weights")
    return path


def write_model(path: Path, content: bytes, mtime_ns: int = LONG_AGO) -> str:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return hashlib.sha256(content).hexdigest()


def falsify(home: Path) -> None:
    """Every remembered digest becomes FALSE."""
    store = home / "fingerprints.json"
    entries = {path: [stamp, FALSE] for path, (stamp, _) in json.loads(store.read_text()).items()}
    store.write_text(json.dumps(entries))


@pytest.mark.parametrize("content", [b"weights" * 100_000, b""], ids=["large", "empty"])
def test_a_file_is_read_once_and_then_remembered(
    content: bytes, model: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home" / "not yet there"
    digest = write_model(model, content)
    assert fingerprint(model, home=home) == digest
    assert json.loads((home / "fingerprints.json").read_text()).keys() == {str(model)}
    falsify(home)
    assert fingerprint(model, home=home) == FALSE
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    assert fingerprint(link, home=home) == FALSE  # another name of the same file
    assert os.listdir(home) == ["fingerprints.json"]


def test_without_a_home_a_file_is_read_each_time(model: Path, tmp_path: Path) -> None:
    for content in (b"weights", b"other weights"):
        digest = write_model(model, content)
        assert fingerprint(model, home=None) == digest
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_a_changed_mtime_is_another_file_until_it_is_read(model: Path, tmp_path: Path) -> None:
    fingerprint(model, home=tmp_path)
    falsify(tmp_path)
    os.utime(model, ns=(LONG_AGO, LONG_AGO + 1))
    assert fingerprint(model, home=tmp_path) == DIGEST
    falsify(tmp_path)
    assert fingerprint(model, home=tmp_path) == FALSE


def test_another_content_of_the_same_size_is_seen(model: Path, tmp_path: Path) -> None:
    assert fingerprint(model, home=tmp_path) == DIGEST
    second = write_model(model, b"2eights", LONG_AGO + 1)
    assert fingerprint(model, home=tmp_path) == second
    other = tmp_path / "other"
    third = write_model(other, b"3eights", LONG_AGO + 1)
    other.rename(model)  # of the same mtime too, but another inode
    assert fingerprint(model, home=tmp_path) == third


def test_a_file_written_to_just_now_is_not_remembered(model: Path, tmp_path: Path) -> None:
    """A second write within the clock's tick would leave no trace in its times."""
    digest = write_model(model, b"weights", time.time_ns())
    assert fingerprint(model, home=tmp_path) == digest
    assert not (tmp_path / "fingerprints.json").exists()


BROKEN = [
    b"",
    b"{",
    b"[1, 2]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"PATH": 3}',
    b'{"PATH": [[1, 2, 3, 4]]}',
    b'{"PATH": [STAMP, "xyz"]}',
    b'{"PATH": [STAMP, 7]}',
    b'{"PATH": [[null, {}, "", 4], "%s"]}' % FALSE.encode(),
]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:20].decode("latin1"))
def test_a_broken_store_is_computed_anew(model: Path, tmp_path: Path, content: bytes) -> None:
    store = tmp_path / "fingerprints.json"
    fingerprint(model, home=tmp_path)
    stamp = json.dumps(json.loads(store.read_text())[str(model)][0]).encode()
    store.write_bytes(content.replace(b"PATH", str(model).encode()).replace(b"STAMP", stamp))
    assert fingerprint(model, home=tmp_path) == DIGEST
    assert json.loads(store.read_text())[str(model)][1] == DIGEST  # and is whole again


def test_a_broken_entry_leaves_the_others(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "fingerprints.json"
    fingerprint(model, home=tmp_path)
    falsify(tmp_path)
    store.write_text(json.dumps(json.loads(store.read_text()) | {"/other": "broken"}))
    assert fingerprint(model, home=tmp_path) == FALSE


UNWRITABLE: dict[str, Callable[[Path], object]] = {
    "read-only": lambda home: home.mkdir(mode=0o500),
    "a file": lambda home: home.write_text("in the way"),
    "store is a directory": lambda home: (home / "fingerprints.json").mkdir(parents=True),
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_home_that_cannot_be_written_is_no_error(model: Path, tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    UNWRITABLE[kind](home)
    assert fingerprint(model, home=home) == fingerprint(model, home=home) == DIGEST
    if home.is_dir():
        assert set(os.listdir(home)) <= {"fingerprints.json"}  # no part is left behind


def test_only_the_newest_entries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    models = [tmp_path / f"{i}.gguf" for i in range(5)]
    for model in models[:4]:
        write_model(model, model.name.encode())
        fingerprint(model, home=tmp_path)
    write_model(models[1], b"changed", LONG_AGO + 1)  # becomes the newest
    fingerprint(models[1], home=tmp_path)
    write_model(models[4], b"4")
    fingerprint(models[4], home=tmp_path)
    kept = json.loads((tmp_path / "fingerprints.json").read_text())
    assert list(kept) == [str(models[i]) for i in (3, 1, 4)]


def test_processes_at_once_leave_a_whole_store(tmp_path: Path) -> None:
    digests = {}
    for i in range(12):
        model = tmp_path / f"{i}.gguf"
        digests[str(model)] = write_model(model, b"%d" % i * 1000)
    code = (
        "import sys; from pathlib import Path; from octavo.weights.fingerprint import fingerprint\n"
        "home = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    for model in sys.argv[2:]:\n"
        "        print(model, fingerprint(Path(model), home=home))\n"
        "    (home / 'fingerprints.json').unlink(missing_ok=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(octavo.__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), *models],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for models in (list(digests), list(digests)[::-1])
    ]  # fmt: skip
    for process in processes:
        lines = process.communicate(timeout=120)[0].splitlines()
        assert process.returncode == 0
        assert lines == [f"{m} {digests[m]}" for m in [line.split()[0] for line in lines]]
        assert len(lines) == 240
    for name, digest in digests.items():
        assert fingerprint(Path(name), home=tmp_path) == digest
    store = json.loads((tmp_path / "fingerprints.json").read_text())
    assert {model: entry[1] for model, entry in store.items()} == digests
    assert not [name for name in os.listdir(tmp_path) if name.startswith("fingerprints.json.")]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"gone\.gguf: No such file"):
        fingerprint(tmp_path / "gone.gguf", home=tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hashlib.file_digest

    def write_behind(file: object, name: str) -> object:
        digest = whole(file, name)  # type: ignore[arg-type]
        with model.open("ab") as end:
            end.write(b"more")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", write_behind)
    with pytest.raises(ModelFormatError, match="changed while it was read"):
        fingerprint(model, home=tmp_path)
    assert not (tmp_path / "fingerprints.json").exists()


def test_what_is_known_is_said_without_reading_a_file(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert known_fingerprint(model, home=None) is None
    assert known_fingerprint(model, home=home) is None
    assert not home.exists()
    assert fingerprint(model, home=home) == DIGEST
    falsify(home)
    assert known_fingerprint(model, home=home) == FALSE
    write_model(model, b"weights", LONG_AGO + 1)
    assert known_fingerprint(model, home=home) is None


def test_what_is_forgotten_is_read_again(model: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other.gguf"
    write_model(other, b"others")
    for path in (model, other):
        fingerprint(path, home=home)
    falsify(home)
    assert [forget([model, tmp_path / "none"], home=home) for _ in range(2)] == [1, 0]
    assert fingerprint(model, home=home) == DIGEST
    assert fingerprint(other, home=home) == FALSE


def test_a_directory_is_known_when_all_its_files_are(tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for path in tiny.iterdir():
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert known_fingerprint(tiny, home=home) is None
    digest = fingerprint(tiny, home=home)
    assert known_fingerprint(tiny, home=home) == digest
    first, *_ = files_of_model(tiny)
    os.utime(first, ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert known_fingerprint(tiny, home=home) is None
