"""What is said when a model is loaded: the memory of its cache, and a context cut to it."""

from __future__ import annotations

import pytest

from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.stats import say_memory
from tests.cli.process import end, start
from tests.cli.terminal import sent_to_terminal
from tests.cli.tiny_model import TINY


def test_a_terminal_is_told_the_budget_and_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    llm = open_llm(TINY, {"kv_memory": "1M", "context": 100})
    say_memory(Screen(as_json=False), llm.info)
    assert capsys.readouterr().err == ""
    sent = sent_to_terminal(80, lambda: say_memory(Screen(as_json=False), llm.info))
    assert "KV: 1 MiB for up to 4,096 tokens, context 100" in sent


def test_a_context_that_the_budget_cuts_is_said_without_a_terminal_too() -> None:
    result = end(start("run", TINY, "hi", "--max-tokens", "2", "--kv-memory", "16K"))
    assert result.code == 0
    warning, figures = result.err.splitlines()
    assert warning == (
        "the context is 64 tokens, not the model's 128: 16,384 bytes of KV memory hold no "
        "more; free memory or raise kv_memory (--kv-memory), or ask for a context that fits "
        "(context=, --context)"
    )
    assert figures.startswith("[21 prompt tokens")


def test_a_context_asked_for_or_that_fits_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    open_llm(TINY, {"kv_memory": "16K", "context": 64})
    open_llm(TINY, {"kv_memory": "32K"})
    assert caplog.records == []
