"""Stories of threads that share one engine: it is stepped by its own, and each waits for its
answers alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from octavo import LLM, OutOfMemoryError
from octavo.engine.nouns import Branch
from octavo.serving.output_queue import OutputQueue
from octavo.serving.request_text import RequestText
from tests.gate import PATIENCE, Gate
from tests.serving.stories import GREEDY, LONG, token_ids

SHORT = replace(GREEDY, max_tokens=1)


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def test_a_stream_closed_during_the_last_step_of_another_thread_is_ended_after_it(
    llm: LLM, gate: Gate, callers: ThreadPoolExecutor
) -> None:
    """It used to hold its blocks until somebody stepped again."""
    stream = llm.stream([1, 2], LONG)
    first = callers.submit(next, stream)
    gate.wait()
    other = callers.submit(llm.generate, [3, 4], SHORT)
    gate.let_one_pass()
    assert len(first.result(PATIENCE).token_ids) == 1
    gate.wait()
    stream.close()  # does not wait for the step
    assert llm.loop.num_open == 2
    gate.open()
    other.result(PATIENCE)
    assert llm.stats()["kv_blocks_used"] == llm.loop.num_open == 0
    assert len(gate.batches) == 2


def test_a_short_answer_does_not_wait_for_the_end_of_a_long_one(
    llm: LLM, gate: Gate, callers: ThreadPoolExecutor
) -> None:
    long = callers.submit(llm.generate, [1], LONG)
    gate.wait()
    short = callers.submit(llm.generate, [2], SHORT)
    while not llm.loop.backlog:  # it has asked
        pass
    gate.let_one_pass()
    gate.wait()
    gate.let_one_pass()
    assert len(token_ids(short.result(PATIENCE)[0])) == 1
    assert not long.done()
    assert set(gate.threads) == {"octavo-engine"}
    gate.open()
    assert len(token_ids(long.result(PATIENCE)[0])) == 60


def test_prompts_are_queued_all_or_none(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, kv_memory="16K")
    params = [SHORT, SHORT, replace(LONG, n=2)]
    with pytest.raises(OutOfMemoryError):
        llm.generate([[1], [2], [3]], params)
    with pytest.raises(OutOfMemoryError):
        next(iter(llm.as_completed([[1], [2], [3]], params)))
    assert llm.stats()["waiting"] == llm.loop.num_open == 0
    assert llm.records == []


def test_a_step_looks_only_at_answers_that_changed(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    catch_up = RequestText.catch_up

    def noting(self: RequestText) -> list[Branch]:
        looked.append(self.request.id)
        return catch_up(self)

    monkeypatch.setattr(RequestText, "catch_up", noting)
    small = LLM(tiny_path, threads=1, max_num_seqs=1)
    small.generate([[1], [2], [3]], replace(SHORT, max_tokens=2))
    assert looked == [0, 0, 1, 1, 2, 2]  # each step


def test_who_generates_is_woken_at_the_end_alone_and_who_streams_by_every_token(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, puts = OutputQueue.put, list[int]()

    def noting(self: OutputQueue, *update: object) -> None:
        puts.append(self.num_left)
        put(self, *update)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputQueue, "put", noting)
    llm.generate([1], GREEDY)
    assert puts == [1]
    chunks = list(llm.stream([1], GREEDY))
    assert len(puts) == 1 + len(chunks) == 9
    assert [c.step for c in chunks] == [r.step for r in llm.records[8:]]


def test_work_is_done_between_steps_and_its_error_is_its_callers(llm: LLM) -> None:
    def fail() -> None:
        raise ValueError("mine")

    assert llm.loop.call(lambda: threading.current_thread().name) == "octavo-engine"
    with pytest.raises(ValueError, match="mine"):
        llm.loop.call(fail)


def test_an_llm_that_ran_nothing_has_no_thread(tiny_path: Path) -> None:
    before = set(threading.enumerate())
    llm = LLM(tiny_path, threads=1)
    assert llm.encode("abc")
    llm.stream([1], LONG)  # nobody reads it
    assert set(threading.enumerate()) <= before
