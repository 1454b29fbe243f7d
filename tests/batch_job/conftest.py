"""A batch in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch_job.running import Batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)
