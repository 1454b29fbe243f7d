"""What a signal's handler raises is told from an error of the code that it breaks off: nothing that
catches errors keeps it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.interrupts import is_interrupt
from octavo.tokenizer import chat_template, kept_merges
from octavo.tokenizer.template_sandbox import TemplateSandbox
from octavo.weights import fingerprint
from tests.cli.tiny_model import spm_entries, write_tiny_model
from tests.ring import Ring, TooLateError, alarm, on_alarm

__all__ = ["alarm"]


class Handler:
    def __call__(self, number: int, frame: object) -> None:
        raise TooLateError


def on_named_alarm(name: str, number: int, frame: object) -> None:
    raise TooLateError(name)


def on_one_alarm(*given: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise TooLateError


HANDLERS: dict[str, Callable[..., None]] = {
    "a function": on_alarm,
    "an object": Handler(),
    "a method": Handler().__call__,
    "a partial": partial(on_named_alarm, "mine"),
    "one that makes way": on_one_alarm,
}


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = spm_entries("{{ messages[-1].content }}")  # of which merges are kept
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", more=more)


@pytest.mark.parametrize("place", [(fingerprint, "_digest"), (kept_merges, "write_whole")])
def test_a_model_that_is_loaded_too_late_is_not_a_model_that_cannot_be_read(
    tiny_path: Path,
    alarm: None,
    place: tuple[Any, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    with Ring(*place, after=True), pytest.raises(TooLateError):
        LLM(tiny_path, threads=1)


@pytest.mark.parametrize("place", [(chat_template, "expect"), (TemplateSandbox, "code")])
def test_a_template_that_is_rendered_too_late_is_not_a_template_that_fails(
    tiny_path: Path, alarm: None, place: tuple[Any, str]
) -> None:
    llm = LLM(tiny_path, threads=1)
    chat_template._compiled.cache_clear()
    with Ring(*place, after=True), pytest.raises(TooLateError):
        llm.chat([{"role": "user", "content": "Hi"}], SamplingParams(max_tokens=1))


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
