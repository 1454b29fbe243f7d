"""The tiny model behind a server; whatever a story does, nothing is held at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM
from tests.cli.tiny_model import write_tiny_model
from tests.server.live import Live
from tests.weights.gguf_bytes import U32, entry, u32


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_llm(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1, block_size=16)


@pytest.fixture(scope="session")
def roomy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context for what chats of tools say."""
    context = entry("llama.context_length", U32, u32(4096))
    return write_tiny_model(tmp_path_factory.mktemp("roomy") / "tiny.gguf", more=[context])


@pytest.fixture(scope="module")
def roomy(roomy_path: Path) -> Iterator[Live]:
    with Live(roomy_path) as server:
        yield server


@pytest.fixture(scope="module")
def live(tiny_path: Path) -> Iterator[Live]:
    """One server for the stories of a file."""
    with Live(tiny_path) as server:
        yield server
