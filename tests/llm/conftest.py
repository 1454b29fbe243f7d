"""The tiny model behind the offline API, a new engine for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo import LLM
from tests.cli.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def llm(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1)
