"""What JSON takes that is kept."""

from __future__ import annotations

import tracemalloc

from octavo.server.packed import packed


def test_it_takes_what_it_has() -> None:
    tracemalloc.start()
    try:
        kept = [packed({"text": "x" * 200}) for _ in range(1000)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept[0] == b'{"text":"' + b"x" * 200 + b'"}'
    assert taken < 2 * sum(map(len, kept))
