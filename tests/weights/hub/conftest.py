"""A hub on this machine with the tiny model as a directory, and a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.hub.fake_hub import COMMIT, FakeHub, Files, files_of, serve
from tests.weights.hub.pointed import cache_in, point_at


@pytest.fixture
def files(tiny: Path) -> Files:
    return files_of(tiny)


@pytest.fixture
def hub(files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve(FakeHub({COMMIT: files})) as running:
        point_at(monkeypatch, running.url)
        yield running


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with cache_in(monkeypatch, tmp_path / "hf") as folder:
        yield folder
