"""Freed memory goes back to the system, whatever lives on above it."""

from __future__ import annotations

from pathlib import Path

from octavo.engine.heap import give_back

_SIZE, _COUNT = 4000, 20_000  # smaller than what is mapped, larger than what Python keeps itself


def test_one_object_that_lives_on_holds_nothing_below_it() -> None:
    chunks = [bytes(_SIZE) for _ in range(_COUNT)]
    last = chunks.pop()
    full = resident()
    chunks.clear()
    give_back()
    assert full - resident() > _SIZE * _COUNT * 0.9
    assert len(last) == _SIZE


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return int(found) << 10
