"""The tiny model behind the offline API, a new engine for each test, which has to hold nothing
at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM
from tests.cli.tiny_model import write_tiny_model
from tests.serving.stories import assert_nothing_held


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def llm(tiny_path: Path) -> Iterator[LLM]:
    llm = LLM(tiny_path, threads=1)
    yield llm
    assert_nothing_held(llm)
