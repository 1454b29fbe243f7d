"""A deadline and a cancel at every point of a request's life: it ends with what it has, its blocks
go back, and its neighbour never notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from octavo.engine.engine import Engine
from octavo.engine.live import LiveRequests
from octavo.request import Request, RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, run, tiny_engine


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


# Where a request of 37 tokens is after so many steps, in chunks of 16 beside a decode
POINTS = {"waiting": 0, "in its prompt": 1, "after its first token": 3, "in its answer": 5}
ASKED = {
    "greedy": {"temperature": 0},
    "three answers": {"n": 3, "temperature": 1.0, "seed": 1},
    "beams": {"beam_width": 3, "n": 2},
}


def neighbour(engine: Engine) -> Request:
    request = add(engine, TEXT[40:50], max_tokens=20, temperature=1.0, seed=7)
    engine.step()
    return request


def alone(**params: object) -> Request:
    engine = tiny_engine(MODEL, POOL, max_rows=17)
    request = add(engine, TEXT[:37], max_tokens=9, **params)
    run(engine)
    return request


@pytest.mark.parametrize("how", ["deadline", "abort"])
@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("point", POINTS)
def test_a_request_ends_where_it_is(point: str, kind: str, how: str) -> None:
    clock = Clock()
    engine = tiny_engine(MODEL, POOL, max_rows=17, step_ms=None, clock=clock)
    other = neighbour(engine)
    held = engine.counts()["kv_blocks_used"]
    options = RequestOptions(deadline_ms=5000)
    request = add(engine, TEXT[:37], options, max_tokens=9, **ASKED[kind])
    for _ in range(POINTS[point]):
        assert engine.step().finished == []
    if how == "deadline":
        clock.now += 4.999
        assert engine.step().finished == []
        clock.now += 0.001
        assert engine.step().finished == [request]
    else:
        engine.finish(request, "abort")
        engine.finish(request, "abort")  # a second time changes nothing
    engine.check_integrity()
    assert request.finished
    assert {s.finish_reason for s in request.branches} == {how}
    lengths = {s.num_completion_tokens for s in request.branches}
    rows = POINTS[point] + (how == "deadline")  # steps that the request was in
    assert lengths == {max(0, rows - 2)}
    if kind != "beams":
        for mine, whole in zip(request.branches, alone(**ASKED[kind]).branches, strict=False):
            assert mine.tokens == whole.tokens[: mine.num_tokens]
    assert engine.counts()["kv_blocks_used"] <= held + 1
    run(engine)
    quiet = tiny_engine(MODEL, POOL)
    assert other.branches[0].tokens == finished_alone(quiet).branches[0].tokens


def finished_alone(engine: Engine) -> Request:
    request = neighbour(engine)
    run(engine)
    return request


def test_a_deadline_counts_from_the_queue_on() -> None:
    """The second waits behind the first, and is ended without having run."""
    clock = Clock()
    engine = tiny_engine(MODEL, POOL, max_num_seqs=1, clock=clock)
    add(engine, TEXT[:5], max_tokens=9)
    late = add(engine, TEXT[:5], RequestOptions(deadline_ms=50), max_tokens=9)
    engine.step()
    clock.now += 0.05
    assert engine.step().finished == [late]
    assert (late.branches[0].num_completion_tokens, late.cache) == (0, None)
    run(engine)


def test_deadlines_end_requests_in_their_own_order() -> None:
    clock = Clock()
    engine = tiny_engine(MODEL, POOL, clock=clock)
    first, second, third = (
        add(engine, TEXT[:5], RequestOptions(deadline_ms=ms), max_tokens=40, ignore_eos=True)
        for ms in (90, 50, 70)
    )
    for milliseconds, ended in ((49, []), (50, [second]), (69, []), (90, [third, first])):
        clock.now = 100 + milliseconds / 1e3
        assert engine.step().finished == ended
        engine.check_integrity()


def test_a_request_that_ends_in_time_has_no_deadline_any_more() -> None:
    clock = Clock()
    engine = tiny_engine(MODEL, POOL, clock=clock)
    request = add(engine, TEXT[:5], RequestOptions(deadline_ms=50), max_tokens=2, temperature=0)
    run(engine)
    clock.now += 1
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
    assert not request.finished
    engine.finish_branch(third, "stop")
    assert request.finished
    assert [s.num_completion_tokens for s in request.branches] == [2, 1, 2]
    engine.check_integrity()
    assert engine.counts()["kv_blocks_used"] == 0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_answers_that_had_not_begun_are_empty_and_counted(steps: int) -> None:
    engine = tiny_engine(MODEL, POOL, max_rows=16, step_ms=None)
    request = add(engine, TEXT[:37], max_tokens=9, n=3, temperature=1.0, seed=1)
    for _ in range(steps):
        engine.step()
    engine.finish(request, "abort")
    engine.check_integrity()
    drawn = int(steps == 3)  # the third chunk ends the prompt, and the answers part
    assert [s.num_completion_tokens for s in request.branches] == [drawn] * 3
    assert [(s.index, s.finish_reason) for s in request.branches] == [
        (0, "abort"), (1, "abort"), (2, "abort"),
    ]  # fmt: skip


def test_a_last_answer_whose_end_breaks_off_ends_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:10], max_tokens=9)
    engine.step()

    def failing(*_: Any) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(engine.kv, "free", failing)
        with pytest.raises(RuntimeError, match="injected"):
            engine.finish_branch(request.branches[0], "stop")
    assert engine.step().finished == [request]
    assert request.branches[0].finish_reason == "stop"
    engine.check_integrity()
    assert engine.counts()["kv_blocks_used"] == 0


def test_an_end_that_an_exception_breaks_off_leaves_no_wait_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request waited for one that computes the same blocks."""
    engine = tiny_engine(MODEL, POOL, max_rows=16, block_size=16, step_ms=None)
    producer, waiting = (add(engine, TEXT[:50], max_tokens=1) for _ in range(2))
    engine.step()

    finish, calls = LiveRequests.finish_branch, []

    def fail_once(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("injected")
        finish(*args)

    with monkeypatch.context() as patch:
        patch.setattr(LiveRequests, "finish_branch", fail_once)
        with pytest.raises(RuntimeError, match="injected"):
            engine.finish(waiting, "abort")
    assert (waiting.finished, producer.finished) == (True, False)
    engine.check_integrity()
    run(engine)
    assert producer.branches[0].finish_reason == "length"
