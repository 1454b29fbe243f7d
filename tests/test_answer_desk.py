"""Stories of threads that share one desk: what one leaves behind, another ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octavo import LLM, RequestOptions, SamplingParams
from octavo.errors import OutOfMemoryError
from octavo.serving.answer import Answer
from octavo.serving.answer_desk import Ask
from tests.cli.tiny_model import write_tiny_model
from tests.gate import PATIENCE, Gate

SHORT = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
LONG = replace(SHORT, max_tokens=60)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def llm(tiny_path: Path) -> Iterator[LLM]:
    llm = LLM(tiny_path, threads=1)
    yield llm
    llm._engine.check_integrity()
    assert llm.desk.num_open == 0


def ask(*tokens: int, params: SamplingParams = SHORT) -> Ask:
    return Ask(tokens, params, RequestOptions())


def test_a_stream_closed_during_the_last_step_of_another_thread_is_ended_after_it(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to hold its blocks until somebody stepped again."""
    stream = llm.stream([1, 2], LONG)
    next(stream)
    llm.desk.add([ask(3, 4)], [])
    gate = Gate(llm, monkeypatch)
    worker = threading.Thread(target=llm.desk.step)
    worker.start()
    gate.wait()
    stream.close()  # does not wait for the step
    assert llm.desk.num_open == 2
    gate.open()
    worker.join(PATIENCE)
    assert (llm.desk.num_open, llm._engine.counts()["kv_blocks_used"]) == (0, 0)


class Announcing:
    """The lock of a desk's queue; says when a thread has asked for its turn."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self.asked.release()


def test_a_short_answer_does_not_wait_for_the_end_of_a_long_one(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that steps in a loop used to take the lock again before the other one woke up."""
    gate, queue = Gate(llm, monkeypatch), Announcing()
    long = threading.Thread(target=llm.generate, args=([1], LONG), name="long")
    short = threading.Thread(target=llm.generate, args=([2], SHORT), name="short")
    long.start()
    gate.wait()
    monkeypatch.setattr(llm.desk, "_queue", queue)
    short.start()
    assert queue.asked.acquire(timeout=PATIENCE)  # to add its prompt
    gate.let_one_pass()
    assert queue.asked.acquire(timeout=PATIENCE)  # both: for a step
    assert queue.asked.acquire(timeout=PATIENCE)
    for _ in range(2):
        gate.wait()
        gate.let_one_pass()
    short.join(PATIENCE)
    assert not short.is_alive()
    assert sorted(gate.threads[:3]) == ["long", "long", "short"]
    gate.open()
    long.join(PATIENCE)


def test_what_a_broken_step_left_behind_is_brought_forward_by_the_next(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the end of two answers in the engine and the first one's text."""
    answers: list[Answer] = []
    llm.desk.add([ask(1), ask(2)], answers)
    one, two = answers

    def interrupted() -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "catch_up", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.desk.step()
    assert (one.request.finished, two.request.finished) == (True, True)
    assert (one.done, two.done) == (False, False)
    monkeypatch.undo()
    llm.desk.step()
    assert (one.done, two.done) == (True, True)
    assert [len(llm.desk.output(a).outputs[0].token_ids) for a in (one, two)] == [1, 1]


def test_prompts_are_queued_all_or_none(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, kv_memory="16K")
    with pytest.raises(OutOfMemoryError):
        llm.desk.add([ask(1), ask(2), ask(3, params=replace(LONG, n=2))], [])
    assert (llm.desk.num_open, llm._engine.has_unfinished) == (0, False)


def test_a_step_looks_only_at_answers_that_changed(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    catch_up = Answer.catch_up

    def noting(self: Answer) -> list[object]:
        looked.append(self.request.id)
        return catch_up(self)  # type: ignore[return-value]

    monkeypatch.setattr(Answer, "catch_up", noting)
    small = LLM(llm.info.path, threads=1, max_num_seqs=1)
    small.generate([[1], [2], [3]], replace(SHORT, max_tokens=2))
    assert looked == [0, 0, 0, 1, 1, 1, 2, 2, 2]  # each step, and the end


def test_an_llm_that_is_gone_leaves_no_timer(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1)
    llm.generate([1], SHORT)
    timer = llm.desk._alarm._thread
    assert timer is not None
    assert timer.is_alive()
    del llm
    timer.join(PATIENCE)
    assert not timer.is_alive()
