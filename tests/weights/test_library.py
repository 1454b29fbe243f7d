"""Which file a name or a path means, and what is said when it means none."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.errors import ModelNotFoundError, UnsupportedModelError
from octavo.weights.library import LIBRARY, find, find_library_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home where smollm2 is installed: a sparse file of the right size."""
    home = tmp_path / "home"
    path = LIBRARY["smollm2"].path(home)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(98_362_432)
    return home


def test_an_installed_model_is_found(home: Path) -> None:
    path = home / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert find("smollm2", home=home) == path
    assert LIBRARY["smollm2"].is_installed(home)


def test_a_model_that_is_not_pulled_says_how(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="run `octavo pull gemma3-270m`"):
        find("gemma3-270m", home=home)
    assert not LIBRARY["smollm2"].is_installed(tmp_path / "nowhere")


def test_half_a_file_is_not_installed(home: Path) -> None:
    with LIBRARY["smollm2"].path(home).open("r+b") as file:
        file.truncate(98_362_431)
    assert not LIBRARY["smollm2"].is_installed(home)
    with pytest.raises(ModelNotFoundError, match="octavo pull smollm2"):
        find("smollm2", home=home)


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


def test_what_is_not_gguf_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="hf:owner/name: Octavo reads GGUF files only"):
        find("hf:owner/name", home=home)
    with pytest.raises(UnsupportedModelError, match="is a directory: Octavo reads GGUF files only"):
        find(tmp_path, home=home)


def test_the_library_cannot_be_changed() -> None:
    assert list(LIBRARY) == ["smollm2", "gemma3-270m"]
    with pytest.raises(TypeError):
        LIBRARY["mine"] = LIBRARY["smollm2"]  # type: ignore[index]
    assert sum(c.wheel_bytes for c in LIBRARY["gemma3-270m"].chunks) == 238_175_024


@pytest.mark.parametrize("wrong", [None, 5, "", b"smollm2"])
def test_what_is_no_name_and_no_path_is_refused(home: Path, wrong: object) -> None:
    with pytest.raises(ModelNotFoundError, match=r"a model is a library name .* or the path"):
        find(wrong, home=home)  # type: ignore[arg-type]


def test_a_name_too_long_for_a_file_is_not_found(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="File name too long"):
        find("x" * 5000, home=home)
