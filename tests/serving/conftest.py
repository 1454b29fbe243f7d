"""The tiny model behind each door; whatever a story does, nothing is held at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM, AsyncEngine
from tests.cli.tiny_model import write_tiny_model
from tests.gate import PATIENCE, Gate
from tests.serving.stories import assert_nothing_held


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def reference(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1)


@pytest.fixture
def llm(tiny_path: Path) -> Iterator[LLM]:
    llm = LLM(tiny_path, threads=1, block_size=16, max_batch_tokens=16)
    yield llm
    assert_nothing_held(llm)


@pytest.fixture
def engine(llm: LLM) -> Iterator[AsyncEngine]:
    engine = AsyncEngine(llm)
    yield engine
    asyncio.run(asyncio.wait_for(engine.aclose(), PATIENCE))


@pytest.fixture
def gate(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(llm, monkeypatch)
