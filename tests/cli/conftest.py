"""What the tests of the command line share: a home of its own, and `octavo` as a function."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from octavo.cli.app import run
from tests.cli.result import BatchFiles, Octavo, Result
from tests.cli.tiny_model import TINY, write_tiny_model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / TINY)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own; the working directory is the folder of the tiny model."""
    monkeypatch.chdir(models)
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def octavo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Octavo:
    """Run a command line in this process, standard input given as text or bytes. In the place of
    the model may be an LLM: the verb opens that."""

    def call(*arguments: Any, stdin: str | bytes = "") -> Result:
        words = [each if isinstance(each, str) else TINY for each in arguments]
        for llm in (each for each in arguments if not isinstance(each, str)):
            monkeypatch.setattr(f"octavo.cli.{words[0]}.open_llm", lambda *_, llm=llm: llm)
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        code = run(words)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def batch(octavo: Octavo, tmp_path: Path) -> BatchFiles:
    return BatchFiles(octavo, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
