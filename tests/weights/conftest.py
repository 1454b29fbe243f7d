"""An index on this machine that has the tiny model, and a home to pull it into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.fake_index import FakeIndex, point_pip_at, serve
from tests.weights.tiny_pull import TINY


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    with serve(FakeIndex(dict(TINY.wheels))) as running:
        point_pip_at(monkeypatch, INDEX_URL=running.url)
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
