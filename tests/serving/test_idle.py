"""Where nothing runs, the engine's thread sleeps, and memory that idles goes back."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from octavo import LLM, AsyncEngine, CacheReason
from tests.gate import PATIENCE
from tests.serving.stories import GREEDY, PROMPT, in_a_loop


class Inbox(queue.SimpleQueue[object]):
    """Counts how often the engine's thread sleeps, for how long at most, and wakes up."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.num_wakes = 0
        self.asleep = threading.Semaphore(0)

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        if timeout == 0:  # only a look
            return super().get(block, timeout)
        self.timeouts.append(timeout)
        self.asleep.release()
        try:
            return super().get(block, timeout)
        finally:
            self.num_wakes += 1

    def sleep(self, times: int) -> None:
        """Until the thread has gone to sleep so many more times."""
        for _ in range(times):
            assert self.asleep.acquire(timeout=PATIENCE)


@pytest.fixture
def watched(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LLM, Inbox]:
    made: list[Inbox] = []

    def make() -> Inbox:
        made.append(Inbox())
        return made[-1]

    names = SimpleNamespace(SimpleQueue=make, Empty=queue.Empty)
    with monkeypatch.context() as patch:
        patch.setattr("octavo.serving.engine_loop.queue", names)
        llm = LLM(tiny_path, threads=1)
    (inbox,) = made
    return llm, inbox


@in_a_loop
async def test_an_idle_engine_sleeps_until_it_is_called(
    watched: tuple[LLM, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, inbox = watched
    monkeypatch.setattr(llm.loop.engine, "reclaim", lambda: None)
    async with AsyncEngine(llm) as engine:
        inbox.sleep(1)
        await engine.generate([1, 2], GREEDY)
        inbox.sleep(1)
        assert inbox.timeouts == [None, None]
        for _ in range(1000):
            engine.stats()
            await asyncio.sleep(0)
        assert (inbox.num_wakes, len(inbox.timeouts)) == (1, 2)


def test_an_idle_engine_wakes_by_itself_only_when_memory_has_idled_enough(
    watched: tuple[LLM, Inbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle memory is due in 600 s; after the next request in no time; then never."""
    llm, inbox = watched
    due = iter([None, 600.0, 1e-9, None])
    reclaimers: list[str] = []

    def reclaim() -> float | None:
        reclaimers.append(threading.current_thread().name)
        return next(due, None)

    monkeypatch.setattr(llm.loop.engine, "reclaim", reclaim)
    llm.loop.start()
    inbox.sleep(1)
    for _ in range(2):
        llm.generate([1], GREEDY)
        inbox.sleep(1)
    inbox.sleep(1)  # once more, after no time
    assert inbox.timeouts == [None, 600.0, 1e-9, None]
    assert reclaimers == ["octavo-engine"] * 4


def test_what_idles_is_given_up_when_its_time_has_come(llm: LLM) -> None:
    llm.generate(PROMPT, GREEDY)
    due = llm.loop.call(llm.loop.engine.reclaim)
    assert due is not None
    assert 590 < due <= 600  # what was cached; nothing lies empty
    assert llm.stats()["kv_blocks_kept"] == 3
    kv = llm.loop.engine.kv
    clock = kv.clock
    kv.clock = lambda: clock() + 600
    llm.loop.call(bool)  # a look at the clock
    assert llm.stats()["kv_blocks_kept"] == 0
    assert llm.generate(PROMPT, GREEDY)[0].cache.reason is CacheReason.EVICTED


def test_memory_goes_back_where_nobody_calls(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, kv_idle=0.2)
    llm.generate(PROMPT, GREEDY)
    end = time.monotonic() + PATIENCE
    while llm.loop.engine.counts()["kv_blocks_kept"] and time.monotonic() < end:
        time.sleep(0.01)
    assert llm.loop.engine.counts()["kv_blocks_kept"] == 0


def test_a_failure_to_give_memory_back_stops_nobody(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> float | None:
        raise OSError("madvise")

    monkeypatch.setattr(llm.loop.engine, "reclaim", fail)
    assert llm.generate([1], GREEDY)[0].usage.completion_tokens == 8
    assert "the memory of idle blocks could not be given back" in caplog.text
