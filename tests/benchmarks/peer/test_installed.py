"""Where peers are looked for, and what is said of those that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peer.installed import NAMES, PACKAGES, Package, find, place_flag, place_variable
from benchmarks.peer.llama_cpp import LlamaCpp
from benchmarks.peer.one import Missing
from benchmarks.peer.python_peer import PythonPeer
from tests.benchmarks.peer.fakes import MODEL, SETTINGS, script


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of an empty folder, which is returned."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["llama.cpp", "ik_llama.cpp"])
def test_programs_are_looked_for_in_the_folder(nothing: Path, name: str) -> None:
    missing = find(name, str(nothing), MODEL, SETTINGS)
    assert isinstance(missing, Missing)
    assert missing.how.startswith(f"none of its programs is in {nothing}: build llama-bench, ")
    script(nothing / "llama-bench", "")
    assert isinstance(find(name, str(nothing), MODEL, SETTINGS), LlamaCpp)


def test_path_is_where_llama_cpp_is_and_not_its_namesake(nothing: Path) -> None:
    script(nothing / "llama-server", "")
    assert isinstance(find("llama.cpp", None, MODEL, SETTINGS), LlamaCpp)
    missing = find("ik_llama.cpp", None, MODEL, SETTINGS)
    assert isinstance(missing, Missing)
    assert "give --ik-llama-cpp DIR or PEER_IK_LLAMA_CPP" in missing.how


def test_a_package_is_looked_for_in_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("pytest", "benchmarks.peer.on_none", "so", "pip install it")
    monkeypatch.setattr("benchmarks.peer.installed.PACKAGES", {"vllm": package})
    found = find("vllm", sys.executable, MODEL, SETTINGS)
    assert isinstance(found, PythonPeer)
    assert (found.version, found.how) == (pytest.__version__, "so")
    for python in (str(tmp_path / "none"), str(script(tmp_path / "python", "raise SystemExit(1)"))):
        missing = find("vllm", python, MODEL, SETTINGS)
        assert missing == Missing(
            "vllm",
            f"{python} has no pytest: pip install it, in an environment of its own, and give "
            "--vllm PYTHON or PEER_VLLM",
        )


def test_the_modules_of_the_packages_are_there() -> None:
    root = Path(__file__).parents[3]
    for package in PACKAGES.values():
        assert (root / package.module.replace(".", "/")).with_suffix(".py").is_file()


def test_every_peer_has_a_flag_and_a_variable() -> None:
    assert [place_flag(name) for name in NAMES[1:]] == [
        "--llama-cpp", "--ik-llama-cpp", "--openvino", "--vllm", "--transformers"
    ]  # fmt: skip
    assert place_variable("ik_llama.cpp") == "PEER_IK_LLAMA_CPP"
