"""A time-out by `signal.alarm`, and Ctrl-C, reach the caller wherever they land, and harm nobody
else's answer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.answer import Answer
from octavo.engine.engine import Engine
from octavo.engine.growth import Growth
from octavo.engine.runner import Runner
from octavo.engine.scheduler import Scheduler
from octavo.interrupts import is_interrupt
from octavo.request import RequestOutput
from octavo.tokenizer import Detokenizer
from octavo.weights import fingerprint
from tests.cli.tiny_model import write_tiny_model

PARAMS = SamplingParams(max_tokens=12, ignore_eos=True, temperature=0)
PROMPTS = [[5, 6, 7], [8, 9], [10]]
OTHER = [20, 21, 22, 23]


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
    "the end of a sequence": (Scheduler, "finish_sequence"),
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


def test_a_model_that_is_loaded_too_late_is_not_a_model_that_cannot_be_read(
    tiny_path: Path, alarm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    ring = Ring(fingerprint, "_digest", nth=1, number=signal.SIGALRM, after=True)
    try:
        with pytest.raises(TooLateError):
            LLM(tiny_path, threads=1)
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
