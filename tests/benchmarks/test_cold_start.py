"""The parts of a start: each counts functions that there are, and together they are all of it."""

from __future__ import annotations

import importlib
import json
import sys
import time
from functools import reduce
from pathlib import Path

import pytest

from benchmarks.start_parts import PARTS
from tests.cli.process import SOURCE, environ, run
from tests.cli.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("place", [place for places in PARTS.values() for place in places])
def test_what_is_counted_is_there(place: tuple[str, str]) -> None:
    module, name = place
    assert callable(reduce(getattr, name.split("."), importlib.import_module(module)))


@pytest.mark.parametrize("flags", [["--raw"], []])
def test_every_part_is_entered_and_all_parts_are_the_whole(
    flags: list[str], tmp_path: Path
) -> None:
    model = str(write_tiny_model(tmp_path / "tiny.gguf"))
    arguments = ["run", model, "hi", "--max-tokens", "1", "--pack-cache", *flags]
    told = run(
        *(sys.executable, "-m", "benchmarks.start_parts", repr(time.perf_counter()), *arguments),
        env={**environ(), "PYTHONPATH": f"{SOURCE}:{ROOT}"},
    )
    assert told.code == 0, told.err
    *parts, (whole, total) = json.loads(told.out.splitlines()[-1]).items()
    assert [name for name, _ in parts] == ["python", "imports", *PARTS, "rest"]
    assert all(spent > 0 for name, spent in parts if name != "rest")
    assert sum(spent for _, spent in parts) == pytest.approx(total)
    assert whole == "all of it, counted"
