"""Where `convert` writes: what takes whose place, and what is left after a failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octavo.convert import convert as module
from octavo.convert import place
from octavo.convert.convert import convert
from octavo.convert.place import taking_place
from octavo.errors import ModelError, UsageError
from octavo.weights.model_header import read_header
from tests.cli.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("convert") / "tiny.gguf")


def files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def test_places_that_are_taken(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "hf")
    before = files(tmp_path / "hf")
    for to in (tmp_path / "hf", tmp_path / "hf" / "inside", tmp_path):
        with pytest.raises(UsageError, match="is, holds or lies in what is converted"):
            convert(tmp_path / "hf", to, kv_heads=4, force=True)
    with pytest.raises(
        UsageError, match="is there already: name another directory, or give --force"
    ):
        convert(gguf, tmp_path / "hf", kv_heads=4)
    (tmp_path / "link").symlink_to(tmp_path / "hf")
    with pytest.raises(UsageError, match="is a link: name the directory itself"):
        convert(gguf, tmp_path / "link", force=True)
    (tmp_path / "link").unlink()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("kept")
    with pytest.raises(UsageError, match="is no directory of a model's files alone"):
        convert(gguf, tmp_path / "papers", force=True)
    assert (tmp_path / "papers" / "a.txt").read_text() == "kept"
    assert files(tmp_path / "hf") == before
    convert(gguf, tmp_path / "hf", kv_heads=4, force=True)
    assert read_header(tmp_path / "hf").config.kv_heads == 4
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hf", "papers"]


def test_a_failure_leaves_nothing_and_what_stood_there(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(gguf, tmp_path / "hf")
    before = files(tmp_path / "hf")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    for fails, error in ((full, ModelError), (broken, KeyboardInterrupt)):
        monkeypatch.setattr(module, "write_weights", fails)
        with pytest.raises(error):
            convert(gguf, tmp_path / "hf", kv_heads=4, force=True)
        assert files(tmp_path / "hf") == before
        assert sorted(each.name for each in tmp_path.iterdir()) == ["hf"]


def test_what_a_killed_one_left_is_taken_away(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / ".hf.converting").mkdir()
    (tmp_path / ".hf.converting" / "model.safetensors").write_bytes(b"half")
    convert(gguf, tmp_path / "hf")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hf"]


def test_too_little_space_is_told_before(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match="the disk has 1,000 left"):
        convert(gguf, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_a_project_with_a_config_is_not_replaced(gguf: Path, tmp_path: Path) -> None:
    for name in ("weightless", "with-folders"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "with-folders" / "a.safetensors").write_text("")
    (tmp_path / "with-folders" / "src").mkdir()
    for name in ("weightless", "with-folders"):
        with pytest.raises(UsageError, match="is no directory of a model's files alone"):
            convert(gguf, tmp_path / name, force=True)
        assert (tmp_path / name / "config.json").read_text() == "{}"


def test_a_directory_whose_files_are_links_into_the_other_one(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "hf")
    (tmp_path / "links").mkdir()
    for each in (tmp_path / "hf").iterdir():
        (tmp_path / "links" / each.name).symlink_to(each)
    with pytest.raises(UsageError, match="is, holds or lies in what is converted"):
        convert(tmp_path / "links", tmp_path / "hf", kv_heads=4, force=True)


def test_the_folder_one_is_in(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(gguf, Path(), force=True)
    assert read_header(tmp_path / "here").config.kv_heads == 2
    assert [each.name for each in tmp_path.iterdir()] == ["here"]


def test_of_two_at_once_the_second_is_refused_and_harms_nothing(gguf: Path, tmp_path: Path) -> None:
    with taking_place(tmp_path / "hf", force=False) as folder:
        (folder / "config.json").write_text("first")
        with pytest.raises(UsageError, match=r"hf is being written by another process$"):
            convert(gguf, tmp_path / "hf")
    assert files(tmp_path / "hf") == {"config.json": b"first"}


def test_what_came_meanwhile_is_not_replaced(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def comes(*_: object) -> None:
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "a.txt").write_text("kept")

    monkeypatch.setattr(module, "_check_written", comes)
    with pytest.raises(ModelError, match="hf cannot be written: Directory not empty"):
        convert(gguf, tmp_path / "hf")
    assert files(tmp_path / "hf") == {"a.txt": b"kept"}
    assert [each.name for each in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_what_stood_there_comes_back_if_the_move_fails(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("old")
    rename = Path.rename

    def fails(path: Path, to: Path) -> Path:
        if path.name.endswith(".converting"):
            raise error
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(type(error)), taking_place(tmp_path / "hf", force=True):
        pass
    assert files(tmp_path / "hf") == {"config.json": b"old"}
    assert [each.name for each in tmp_path.iterdir()] == ["hf"]


def test_what_a_killed_one_had_moved_away_comes_back_or_is_replaced(tmp_path: Path) -> None:
    for name, ends in (("back", False), ("replaced", True)):
        (tmp_path / f".{name}.replaced").mkdir()
        (tmp_path / f".{name}.replaced" / "config.json").write_text("old")
        if ends:
            with taking_place(tmp_path / name, force=False):
                pass
        else:
            with pytest.raises(KeyboardInterrupt), taking_place(tmp_path / name, force=False):
                raise KeyboardInterrupt
    assert files(tmp_path / "back") == {"config.json": b"old"}
    assert files(tmp_path / "replaced") == {}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["back", "replaced"]


def test_what_the_next_one_began_as_the_first_ended_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def next_begins(path: Path) -> None:
        if path == tmp_path:  # the first has its place
            (tmp_path / ".hf.converting").mkdir()

    monkeypatch.setattr(place, "sync_directory", next_begins)
    with taking_place(tmp_path / "hf", force=False):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == [".hf.converting", "hf"]
