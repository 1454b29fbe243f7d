"""A time-out by `signal.alarm`, and Ctrl-C, reach the caller wherever they land, and harm nobody
else's answer."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import octavo.serving.llm
from octavo import LLM, AsyncEngine, SamplingParams
from octavo.engine.engine import Engine
from octavo.engine.growth import Growth
from octavo.engine.runner import Runner
from octavo.engine.scheduler import Scheduler
from octavo.interrupts import is_interrupt
from octavo.request import RequestOutput, StreamChunk
from octavo.serving.answer import Answer
from octavo.serving.answer_desk import AnswerDesk
from octavo.serving.engine_thread import EngineThread
from octavo.serving.mailbox import Mailbox
from octavo.tokenizer import Detokenizer, chat_template, document
from octavo.tokenizer.template_sandbox import TemplateSandbox
from octavo.weights import fingerprint
from tests.cli.tiny_model import write_tiny_model

PARAMS = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0)
PROMPTS = [[5, 6, 7], [8, 9], [10]]
OTHER = [20, 21, 22, 23]
PATIENCE = 30  # seconds


class TooLateError(TimeoutError):
    """TimeoutError is an OSError: what catches those must let it through."""


class Handler:
    def __call__(self, number: int, frame: object) -> None:
        raise TooLateError


def on_alarm(number: int, frame: object) -> None:
    raise TooLateError


def on_named_alarm(name: str, number: int, frame: object) -> None:
    raise TooLateError(name)


def on_one_alarm(*given: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise TooLateError


HANDLERS = {
    "a function": on_alarm,
    "an object": Handler(),
    "a method": Handler().__call__,
    "a partial": partial(on_named_alarm, "mine"),
    "one that makes way": on_one_alarm,
}


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, on_alarm)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def llm(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1, context=128)


class Ring:
    """Signals at the nth call of a method, before it or after it."""

    def __init__(self, owner: Any, name: str, *, nth: int, number: int, after: bool) -> None:
        self.rang = False
        self._real = getattr(owner, name)
        self._restore = lambda: setattr(owner, name, self._real)
        real, left = self._real, nth

        def ringing(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            result = real(*args, **options) if after or left else None
            if left == 0:
                self.rang = True
                signal.raise_signal(number)
            return result

        setattr(owner, name, ringing)

    def remove(self) -> None:
        self._restore()


PLACES = {
    "forward": (Runner, "forward"),
    "the text of an answer": (Detokenizer, "push"),
    "an answer": (Answer, "catch_up"),
    "a token": (Growth, "_grow_answers"),
    "the end of a sequence": (Scheduler, "finish_branch"),
    "the end of a request": (Engine, "_end"),
}


def text(output: RequestOutput) -> tuple[str, tuple[int, ...]]:
    return output.outputs[0].text, output.outputs[0].token_ids


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGINT])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", PLACES)
def test_it_reaches_the_caller_and_a_stream_beside_it_goes_on(
    llm: LLM, alarm: None, place: str, after: bool, number: int
) -> None:
    alone = text(llm.generate([OTHER], PARAMS)[0])
    for nth in (1, 2, 3):
        stream = llm.stream(OTHER, PARAMS)
        chunks = [next(stream)]
        owner, name = PLACES[place]
        ring = Ring(owner, name, nth=nth, number=number, after=after)
        kind = KeyboardInterrupt if number == signal.SIGINT else TooLateError
        try:
            with pytest.raises(kind):
                llm.generate(PROMPTS, PARAMS)
        finally:
            ring.remove()
        assert ring.rang
        chunks += stream
        output = chunks[-1].output
        assert output is not None
        assert text(output) == alone
        assert "".join(c.text for c in chunks) == alone[0]
        assert tuple(t for c in chunks for t in c.token_ids) == alone[1]
        assert llm.stats()["running"] == 0
        assert [text(o) for o in llm.generate([OTHER] * 2, PARAMS)] == [alone] * 2
        llm._engine.check_integrity()


WATCHED = PLACES | {
    "a request": (Engine, "add"),
    "a change": (EngineThread, "changed"),
    "the bell of a reader": (Mailbox, "tell"),
    "an output": (AnswerDesk, "output"),
    "the place of a request": (EngineThread, "_forget"),
}


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGINT])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place", WATCHED)
def test_it_costs_the_readers_of_an_event_loop_nothing(
    llm: LLM, alarm: None, place: str, after: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their requests are taken in, brought forward and ended in the turns of another thread."""
    alone = text(llm.generate([OTHER], PARAMS)[0])
    may_step = threading.Event()
    step = EngineThread._step

    def late_step(self: EngineThread) -> None:
        assert may_step.wait(PATIENCE)
        step(self)

    monkeypatch.setattr(EngineThread, "_step", late_step)
    asked, heard = threading.Event(), list[StreamChunk]()

    async def read() -> None:
        async with AsyncEngine(llm) as engine:
            stream = engine.stream(OTHER, PARAMS)
            asked.set()
            heard.extend([chunk async for chunk in stream])

    reader = threading.Thread(target=asyncio.run, args=[asyncio.wait_for(read(), PATIENCE)])
    reader.start()
    assert asked.wait(PATIENCE)
    ring = Ring(*WATCHED[place], nth=1, number=number, after=after)
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else TooLateError):
            llm.generate([5], replace(PARAMS, max_tokens=20))
    finally:
        ring.remove()
        may_step.set()
    reader.join(PATIENCE)
    assert "".join(c.text for c in heard) == alone[0]
    assert tuple(t for c in heard for t in c.token_ids) == alone[1]
    output = heard[-1].output
    assert output is not None
    assert text(output) == alone
    assert (llm.desk.num_open, llm.stats()["running"], llm.stats()["waiting"]) == (0, 0, 0)


@pytest.mark.parametrize("place", [(Engine, "add"), (AnswerDesk, "_rest")])
@pytest.mark.parametrize("call", ["generate", "stream"])
def test_a_prompt_that_was_queued_just_then_does_not_run_on(
    llm: LLM, alarm: None, place: tuple[type, str], call: str
) -> None:
    ring = Ring(*place, nth=1, number=signal.SIGALRM, after=True)
    try:
        with pytest.raises(TooLateError):
            list(getattr(llm, call)([1, 2, 3], PARAMS))
    finally:
        ring.remove()
    assert llm.stats()["waiting"] == 0
    assert llm.desk.num_open == 0


def test_rows_that_are_given_up_hold_nothing_while_the_error_is_looked_at(
    llm: LLM, alarm: None
) -> None:
    """They gave their blocks back when its traceback went, in the middle of others' steps."""
    ring = Ring(octavo.serving.llm, "log_probs", nth=1, number=signal.SIGALRM, after=True)
    try:
        with pytest.raises(TooLateError) as caught:
            llm.score([1, 2, 3])
    finally:
        ring.remove()
    assert llm._engine.counts()["kv_blocks_used"] == 0
    assert caught.tb is not None


@pytest.mark.parametrize("place", [(fingerprint, "_digest"), (document, "_write")])
def test_a_model_that_is_loaded_too_late_is_not_a_model_that_cannot_be_read(
    tiny_path: Path,
    alarm: None,
    place: tuple[Any, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    ring = Ring(*place, nth=1, number=signal.SIGALRM, after=True)
    try:
        with pytest.raises(TooLateError):
            LLM(tiny_path, threads=1)
    finally:
        ring.remove()


@pytest.mark.parametrize("place", [(chat_template, "expect"), (TemplateSandbox, "code")])
def test_a_template_that_is_rendered_too_late_is_not_a_template_that_fails(
    llm: LLM, alarm: None, place: tuple[Any, str]
) -> None:
    ring = Ring(*place, nth=1, number=signal.SIGALRM, after=True)
    chat_template._compiled.cache_clear()
    try:
        with pytest.raises(TooLateError):
            llm.chat([{"role": "user", "content": "Hi"}], PARAMS)
    finally:
        ring.remove()


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_a_program_raises_itself_is_no_interrupt(alarm: None, handler: str) -> None:
    def own() -> None:
        raise TooLateError

    signal.signal(signal.SIGALRM, HANDLERS[handler])
    with pytest.raises(TooLateError) as caught:
        own()
    assert not is_interrupt(caught.value)
    with pytest.raises(TooLateError) as caught:
        signal.raise_signal(signal.SIGALRM)
    assert is_interrupt(caught.value)
    assert is_interrupt(KeyboardInterrupt())
