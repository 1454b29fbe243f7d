"""What the tests of the command line share: a home of its own, and `octavo` as a function."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from octavo.cli.app import run
from tests.batch_job.lines import write
from tests.cli.tiny_model import write_tiny_model


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


Octavo = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.fixture
def octavo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Octavo:
    """Run a command line in this process, standard input given as text or bytes."""

    def call(*arguments: str, stdin: str | bytes = "") -> Result:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        code = run(list(arguments))
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def files(tmp_path, tiny):
    """Write IN of a batch; returns it and OUT as arguments, and OUT as a path."""

    def make(*lines: str) -> tuple[list[str], object]:
        path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        write(path, *lines)
        return [str(path), str(out)], out

    return make
