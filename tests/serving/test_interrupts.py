"""A time-out by a signal's handler, and Ctrl-C, reach the caller that waits, end its requests, and
harm nobody else's answer."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from octavo import LLM, AsyncEngine, RequestOutput, StreamChunk
from octavo.engine.engine import Engine
from octavo.engine.live import LiveRequests
from octavo.engine.runner import Runner
from octavo.serving.engine_loop import EngineLoop
from octavo.serving.request_text import RequestText
from octavo.tokenizer import Detokenizer
from tests.gate import PATIENCE
from tests.ring import HANDLED, Ring, TooLateError, alarm
from tests.serving.stories import GREEDY, LONG, PROMPTS, assert_nothing_held, token_ids

__all__ = ["alarm"]
OTHER = [20, 21, 22, 23]

# Of the engine's thread, while the caller waits: what was to ring there broke steps off once.
PLACES = {
    "a request": (Engine, "add"),
    "forward": (Runner, "forward"),
    "the text of an answer": (Detokenizer, "push"),
    "an answer": (RequestText, "catch_up"),
    "the end of a request": (LiveRequests, "end"),
    "the end of a round": (EngineLoop, "_end_round"),
}


@contextmanager
def readers_beside(llm: LLM) -> Iterator[list[RequestOutput]]:
    """Another thread, and an event loop, ask the same over and over."""
    found: list[RequestOutput] = []
    began, is_over = threading.Semaphore(0), threading.Event()

    async def read() -> None:
        async with AsyncEngine(llm) as engine:
            while not is_over.is_set():
                found.append(await engine.generate(OTHER, GREEDY))
                began.release()

    def generate() -> None:
        while not is_over.is_set():
            found.extend(llm.generate([OTHER], GREEDY))
            began.release()

    threads = [
        threading.Thread(target=generate),
        threading.Thread(target=asyncio.run, args=[asyncio.wait_for(read(), PATIENCE)]),
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert began.acquire(timeout=PATIENCE)
        yield found
    finally:
        is_over.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.mark.parametrize("number", HANDLED)
@pytest.mark.parametrize("place", PLACES)
def test_it_reaches_the_caller_and_all_beside_it_go_on(
    llm: LLM, alarm: None, place: str, number: int
) -> None:
    alone = llm.generate([OTHER], LONG)[0].outputs
    short = llm.generate([OTHER], GREEDY)[0].outputs
    owner, name = PLACES[place]
    with readers_beside(llm) as found:
        for nth in (1, 2, 3):
            stream = llm.stream(OTHER, LONG)
            chunks = [next(stream)]
            ring = Ring(
                owner, name, nth=nth, number=number,
                counts=lambda: llm.loop.num_open > 6,  # of these, and three others
            )  # fmt: skip
            with ring, pytest.raises(HANDLED[number]):
                llm.generate(PROMPTS[:10], LONG)
            assert ring.rang
            chunks += stream
            assert chunks[-1].output is not None
            assert chunks[-1].output.outputs == alone
            assert "".join(c.text for c in chunks) == alone[0].text
    assert all(output.outputs == short for output in found)
    assert_nothing_held(llm)


# What rings inside the callback of a weak reference, Python tells and drops: the call goes on.
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <function Weak\w+\.__init__"
    ":pytest.PytestUnraisableExceptionWarning"
)
def test_it_may_come_at_any_time(llm: LLM, alarm: None) -> None:
    """Whatever is called either gives its whole answer or raises what the handler did."""
    draw = random.Random(8)
    calls: list[Callable[[], object]] = [
        lambda: [o.outputs for o in llm.generate(PROMPTS, GREEDY)],
        lambda: dict(llm.as_completed(PROMPTS, GREEDY)).keys(),
        lambda: [c.token_ids for c in llm.stream(OTHER, GREEDY)],
        lambda: [token_ids(o) for o in llm.generate([OTHER], LONG)],
        lambda: llm.score(list(range(100))).tolist(),
        lambda: sorted(llm.stats()),
    ]
    want = [call() for call in calls]
    num_late = 0
    with readers_beside(llm) as found:
        for _ in range(150):
            number = draw.randrange(len(calls))
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.expovariate(200))
                got = calls[number]()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TooLateError:
                num_late += 1
            else:
                assert got == want[number]
    assert 10 < num_late < 140
    assert len({o.outputs for o in found}) == 1
    assert_nothing_held(llm)


def test_a_first_call_that_is_broken_off_leaves_one_thread(tiny_path: object, alarm: None) -> None:
    """The call was broken off while it started the thread: the next one starts it again."""
    llm = LLM(tiny_path, threads=1)  # type: ignore[arg-type]
    with Ring(threading.Thread, "start", after=True), pytest.raises(TooLateError):
        llm.generate([1], GREEDY)
    assert token_ids(llm.generate([1], GREEDY)[0])
    assert_nothing_held(llm)


def test_a_prompt_that_was_queued_just_then_does_not_run_on(llm: LLM, alarm: None) -> None:
    llm.generate([1], GREEDY)
    for call in (llm.generate, llm.stream):
        with Ring(EngineLoop, "submit", after=True), pytest.raises(TooLateError):
            list(call([1, 2, 3], LONG))
        assert_nothing_held(llm)
    assert len(llm.records) < 8 + 2 * 60


def test_rows_that_are_given_up_hold_nothing_while_the_error_is_looked_at(
    llm: LLM, alarm: None
) -> None:
    with Ring(Runner, "forward"), pytest.raises(TooLateError) as caught:
        llm.score(list(range(128)))
    assert llm.stats()["kv_blocks_used"] == 0
    assert caught.tb is not None


def test_a_handler_may_call_the_model_itself(llm: LLM, alarm: None) -> None:
    found: list[RequestOutput] = []

    def ask(number: int, frame: object) -> None:
        found.extend(llm.generate([OTHER], GREEDY))

    signal.signal(signal.SIGALRM, ask)
    with Ring(Runner, "forward", nth=3):
        output = llm.generate([OTHER], GREEDY)[0]
    assert [o.outputs for o in found] == [output.outputs]


def test_a_stream_is_ended_by_what_breaks_its_reader_off(llm: LLM, alarm: None) -> None:
    read: list[StreamChunk] = []
    with Ring(Runner, "forward", nth=9), pytest.raises(TooLateError):
        read.extend(llm.stream(OTHER, replace(LONG, max_tokens=100)))
    assert_nothing_held(llm)
    assert len(llm.records) < 100
