"""The tiny model behind a server; whatever a story does, nothing is held at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM
from tests.cli.tiny_model import write_tiny_model
from tests.server.live import Live


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_llm(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1, block_size=16)


@pytest.fixture(scope="module")
def live(tiny_path: Path) -> Iterator[Live]:
    """One server for the stories of a file."""
    with Live(tiny_path) as server:
        yield server
