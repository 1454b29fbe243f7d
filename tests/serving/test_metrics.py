"""The times of a request, by a clock that is set by hand."""

from __future__ import annotations

from octavo.serving.request_text import metrics
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, tiny_engine


def test_a_request_queues_until_it_first_runs() -> None:
    now = [5.0]
    engine = tiny_engine(MODEL, POOL, clock=lambda: now[0], max_num_seqs=1, step_ms=None)
    first, second = (add(engine, TEXT[:5], max_tokens=2) for _ in range(2))
    third = add(engine, TEXT[:5])
    for now[0] in (5.25, 5.5, 6.0, 7.0):
        engine.step()
    engine.finish(third, "abort")
    assert [metrics(r).queue_ms for r in (first, second)] == [250.0, 1000.0]
    assert metrics(third).queue_ms is None
