"""Which file a name or a path means, and what is said when it means none."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import (
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
    UsageError,
)
from octavo.model.registry import ARCHITECTURES
from octavo.weights import library
from octavo.weights.library import LIBRARY, check_whole, find, find_library_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home where smollm2 is installed: a sparse file of the right size."""
    home = tmp_path / "home"
    path = LIBRARY["smollm2"].path(home)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(98_362_432)
    return home


def test_a_whole_model_is_found_and_one_that_is_not_says_how_to_pull_it(
    home: Path, tmp_path: Path
) -> None:
    model = LIBRARY["smollm2"]
    path = home / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert find("smollm2", home=home) == path
    assert model.is_installed(home)
    with path.open("r+b") as file:
        file.truncate(98_362_431)  # a byte less
    assert model.is_damaged(home)
    for place in (home, tmp_path / "nowhere"):
        assert not model.is_installed(place)
        with pytest.raises(ModelNotFoundError, match="run `octavo pull smollm2`"):
            find("smollm2", home=place)


def test_nobody_is_sent_to_pull_a_model_that_does_not_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """241 MB used to be fetched before the refusal."""
    strange = replace(LIBRARY["gemma3-270m"], name="strange", architecture="gamma")
    monkeypatch.setattr(library, "LIBRARY", {"strange": strange})
    with pytest.raises(UnsupportedModelError) as refused:
        find("strange", home=home)
    assert str(refused.value) == (
        "strange is not on this machine and could not be run: architecture 'gamma' is not "
        f"supported: {', '.join(sorted(ARCHITECTURES))} are; `octavo pull strange` fetches it for "
        "`octavo inspect`"
    )


def test_which_library_models_run_is_said_by_the_registry() -> None:
    runs = {name: not model.unsupported for name, model in LIBRARY.items()}
    assert runs == {name: m.architecture in ARCHITECTURES for name, m in LIBRARY.items()}
    assert runs["smollm2"]


def test_a_damaged_model_is_refused_by_its_checksum_and_says_how_to_mend(
    home: Path, tmp_path: Path
) -> None:
    """It used to run."""
    path = LIBRARY["smollm2"].path(home)
    assert not LIBRARY["smollm2"].is_damaged(home)  # its size is right, and nobody looked into it
    os.utime(path, ns=(1, 1))  # old enough to be remembered
    with pytest.raises(ModelFormatError, match=r"is damaged \(sha256 .*\): `octavo pull smollm2`"):
        check_whole(path, home=home)
    assert LIBRARY["smollm2"].is_damaged(home)
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    with pytest.raises(ModelFormatError, match="is damaged"):
        check_whole(link, home=home)
    own = tmp_path / "own.gguf"
    own.write_bytes(b"anything")
    assert check_whole(own, home=home) is None  # nobody knows what it should be


def test_a_whole_model_has_its_checksum(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(LIBRARY["smollm2"], nbytes=3, sha256=hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(library, "LIBRARY", {"smollm2": model})
    model.path(home).write_bytes(b"abc")
    assert check_whole(model.path(home), home=home) == model.sha256
    assert model.is_whole(home)
    assert not model.is_damaged(home)


def test_a_path_is_found_whatever_it_is_called(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own.gguf", "smollm2"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find(tmp_path / "own.gguf", home=home) == tmp_path / "own.gguf"
    assert find("own.gguf", home=home) == Path("own.gguf")
    assert find("~/own.gguf", home=home) == tmp_path / "own.gguf"
    assert find("./smollm2", home=home) == Path("smollm2")
    assert find("smollm2", home=home).name == "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smol-lm2", r"'smol-lm2'; did you mean smollm2\? `octavo pull smollm2` fetches it"),
        ("Gemma3", r"'Gemma3'; did you mean gemma3-270m\?"),
        (
            "qwerty.gguf",
            r"'qwerty\.gguf'; the library has smollm2, gemma3-270m: `octavo pull NAME`",
        ),
    ],
)
def test_unknown_names(home: Path, name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        find(name, home=home)
    with pytest.raises(ModelNotFoundError, match=message):
        find_library_model(name)


def test_directories_are_models_and_names_on_the_hub_are_checked(
    home: Path, tmp_path: Path
) -> None:
    assert find(tmp_path, home=home) == tmp_path
    with pytest.raises(UsageError, match=r"'hf:gpt2' is no name on the hub: expected hf:owner/n"):
        find("hf:gpt2", home=home)


def test_the_library_cannot_be_changed() -> None:
    assert list(LIBRARY) == ["smollm2", "gemma3-270m"]
    with pytest.raises(TypeError):
        LIBRARY["mine"] = LIBRARY["smollm2"]
    assert sum(c.wheel_bytes for c in LIBRARY["gemma3-270m"].chunks) == 238_175_024


NO_PATH = "a model is a library name .*, the path .* or hf:owner/name"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [*((w, NO_PATH) for w in (None, 5, "", b"smollm2")), ("x" * 5000, "File name too long")],
)
def test_what_is_no_name_and_no_path_is_refused(home: Path, wrong: object, said: str) -> None:
    with pytest.raises(ModelNotFoundError, match=said):
        find(wrong, home=home)
