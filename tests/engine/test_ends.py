"""A deadline and a cancel at every point of a request's life: it ends with what it has, its blocks
go back, and its neighbour never notices."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from octavo.engine.nouns import Request
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.interrupt import fault
from tests.engine.tiny_engine import add, answered, run, tiny_engine

# Where a request of 37 tokens is after so many steps, in chunks of 16 beside a decode
POINTS = {"waiting": 0, "in its prompt": 1, "after its first token": 3, "in its answer": 5}
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "three answers": {"n": 3, "temperature": 1.0, "seed": 1},
    "beams": {"beam_width": 3, "n": 2},
}


class Unremovable(list[Request]):
    def remove(self, request: Request) -> None:
        raise RuntimeError("injected")


@pytest.mark.parametrize("how", ["deadline", "abort"])
@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("point", POINTS)
def test_a_request_ends_where_it_is(point: str, kind: str, how: str) -> None:
    now = 100.0
    engine = tiny_engine(MODEL, POOL, max_rows=17, step_ms=None, clock=lambda: now)
    noise: dict[str, Any] = {"max_tokens": 20, "temperature": 1.0, "seed": 7}
    other = add(engine, TEXT[40:50], **noise)
    engine.step()
    held = engine.counts()["kv_blocks_used"]
    options = RequestOptions(deadline_ms=5000)
    request = add(engine, TEXT[:37], options, max_tokens=9, **ASKED[kind])
    for _ in range(POINTS[point]):
        assert engine.step().finished == []
    if how == "deadline":
        now += 4.999
        assert engine.step().finished == []
        now += 0.001
        assert engine.step().finished == [request]
    else:
        engine.finish(request, "abort")
        engine.finish(request, "abort")  # a second time changes nothing
    engine.check_integrity()
    assert request.finished
    assert {s.finish_reason for s in request.branches} == {how}
    if kind != "beams":  # answers that had not begun are counted too
        assert [s.index for s in request.branches] == list(range(request.params.n))
    lengths = {s.num_completion_tokens for s in request.branches}
    rows = POINTS[point] + (how == "deadline")  # steps that the request was in
    assert lengths == {max(0, rows - 2)}
    assert engine.counts()["kv_blocks_used"] <= held + 1
    run(engine)
    assert engine.counts()["kv_blocks_used"] == 0
    same = answered(tiny_engine(MODEL, POOL), TEXT[40:50], **noise)
    assert other.branches[0].tokens == same.branches[0].tokens
    if kind != "beams":
        same = answered(tiny_engine(MODEL, POOL), TEXT[:37], max_tokens=9, **ASKED[kind])
        for mine, whole in zip(request.branches, same.branches, strict=False):
            assert mine.tokens == whole.tokens[: mine.num_tokens]


def test_a_deadline_counts_from_the_queue_on() -> None:
    """The second waits behind the first, and is ended without having run."""
    now = 100.0
    engine = tiny_engine(MODEL, POOL, max_num_seqs=1, clock=lambda: now)
    add(engine, TEXT[:5], max_tokens=9)
    late = add(engine, TEXT[:5], RequestOptions(deadline_ms=50), max_tokens=9)
    engine.step()
    now += 0.05
    assert engine.step().finished == [late]
    assert (late.branches[0].num_completion_tokens, late.cache) == (0, None)
    run(engine)


def test_deadlines_end_requests_in_their_own_order() -> None:
    now = 100.0
    engine = tiny_engine(MODEL, POOL, clock=lambda: now)
    first, second, third = (
        add(engine, TEXT[:5], RequestOptions(deadline_ms=ms), max_tokens=40, ignore_eos=True)
        for ms in (90, 50, 70)
    )
    for milliseconds, ended in ((49, []), (50, [second]), (69, []), (90, [third, first])):
        now = 100 + milliseconds / 1e3
        assert engine.step().finished == ended
        engine.check_integrity()


def test_a_request_that_ends_in_time_has_no_deadline_any_more() -> None:
    now = 100.0
    engine = tiny_engine(MODEL, POOL, clock=lambda: now)
    request = answered(engine, TEXT[:5], RequestOptions(deadline_ms=50), max_tokens=2)
    now += 1
    assert engine.step().finished == []
    assert request.branches[0].finish_reason == "length"


def test_one_answer_of_several_may_end_early() -> None:
    """One is ended as a stop string in its text ends it. The last one ends the request."""
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:10], n=3, max_tokens=9, temperature=1.0, seed=1)
    engine.step()
    first, second, third = request.branches
    engine.finish_branch(second, "stop")
    engine.check_integrity()
    assert [s.finish_reason for s in request.branches] == [None, "stop", None]
    assert engine.step().grown == [first, third]
    engine.finish_branch(first, "stop")
    engine.finish_branch(first, "stop")
    early = request.finished
    engine.finish_branch(third, "stop")
    assert (early, request.finished) == (False, True)
    assert [s.num_completion_tokens for s in request.branches] == [2, 1, 2]
    engine.check_integrity()
    assert engine.counts()["kv_blocks_used"] == 0


def test_a_last_answer_whose_end_breaks_off_ends_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:10], max_tokens=9)
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(engine.kv, "free", Mock(side_effect=RuntimeError("injected")))
        with pytest.raises(RuntimeError, match="injected"):
            engine.finish_branch(request.branches[0], "stop")
    assert engine.step().finished == [request]
    assert request.branches[0].finish_reason == "stop"
    engine.check_integrity()
    assert engine.counts()["kv_blocks_used"] == 0


def test_an_end_that_broke_off_at_its_last_line_is_brought_to_its_end() -> None:
    """As a second Ctrl-C may do while the first one is recovered from."""
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:10], max_tokens=9)
    engine.step()
    engine.requests.running = Unremovable([request])
    with pytest.raises(RuntimeError, match="injected"):
        engine.requests.end(request, "abort")
    assert request.finished
    engine.requests.running = [request]
    engine.finish(request, "abort")
    assert not engine.requests.all
    engine.check_integrity()


def test_an_end_that_an_exception_breaks_off_leaves_no_wait_behind() -> None:
    """The request waited for one that computes the same blocks."""
    engine = tiny_engine(MODEL, POOL, max_rows=16, block_size=16, step_ms=None)
    producer, waiting = (add(engine, TEXT[:50], max_tokens=1) for _ in range(2))
    engine.step()
    with fault(engine, "requests.finish_branch"), pytest.raises(RuntimeError, match="injected"):
        engine.finish(waiting, "abort")
    assert (waiting.finished, producer.finished) == (True, False)
    engine.check_integrity()
    run(engine)
    assert producer.branches[0].finish_reason == "length"
