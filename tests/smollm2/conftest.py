"""The real model behind the offline API, loaded once for all its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo import LLM


@pytest.fixture(scope="package")
def llm(smollm2_path: Path) -> LLM:
    return LLM(smollm2_path, threads=2, context=1024)
