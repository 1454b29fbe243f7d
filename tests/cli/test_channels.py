"""Answers in Harmony's channels on a terminal, of `run` and of `chat`."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from octavo.protocol.tools.harmony.header import CHANNEL, END, MESSAGE, START, TAGS
from tests.cli.fake_llm import FakeLLM
from tests.cli.result import Octavo
from tests.protocol.tools.harmony.shape import TEMPLATE

FINAL = [CHANNEL, "final", MESSAGE, "So ", "it is."]
WHOLE = [CHANNEL, "analysis", MESSAGE, "I ", "think.", END, START, "assistant", *FINAL]
SHOWN = "<think>\nI think.\n</think>\n\nSo it is.\n"


class Tokenizer:
    """Ids are places in the answer, whose tags are control tokens."""

    spec = SimpleNamespace(chat_template=TEMPLATE, tokens=WHOLE)

    def control_id(self, name: str) -> int | None:
        return WHOLE.index(name) if name in WHOLE else None

    def is_control(self, token_id: int) -> bool:
        return WHOLE[token_id] in TAGS


@dataclass
class Thinker(FakeLLM):
    template: str | None = TEMPLATE
    tokenizer: Tokenizer = field(default_factory=Tokenizer)  # type: ignore[assignment]

    def template_for(self, *, tools: bool) -> str | None:
        return self.template


@pytest.mark.parametrize(("verb", "words"), [("run", ["hi"]), ("chat", [])])
def test_reasoning_is_shown_between_tags(octavo: Octavo, verb: str, words: list[str]) -> None:
    llm = Thinker(WHOLE)
    result = octavo(verb, llm, *words, stdin="hi\n")
    assert (result.code, result.out) == (0, SHOWN)
    (_, options), *_ = llm.given
    assert options is not None
    assert {WHOLE[each] for each in options.shown_tokens} == set(TAGS).intersection(WHOLE)


def test_tags_that_are_read_are_not_said_to_be_hidden(octavo: Octavo) -> None:
    for pieces, is_said in ((WHOLE[:5], False), (WHOLE, True)):  # there an id is another, twice
        assert ("drawn, not shown" in octavo("run", Thinker(pieces), "hi").err) is is_said


def test_the_conversation_goes_on_with_the_text_alone(octavo: Octavo) -> None:
    result = octavo("chat", Thinker(WHOLE), "--json", stdin="hi\n")
    assert result.said("user", "assistant") == ["hi", "So it is."]


def test_a_stopped_answer_shows_as_far_as_it_came(octavo: Octavo) -> None:
    for end, shown in ((4, "<think>\nI \n"), (6, "<think>\nI think.\n</think>\n\n\n"), (1, "\n")):
        assert octavo("run", Thinker(WHOLE[:end]), "hi").out == shown


def test_the_prompt_as_it_is_has_no_channels(octavo: Octavo) -> None:
    llm = Thinker(["So"])
    llm.encode = lambda text, **_: [1]  # type: ignore[attr-defined]
    assert octavo("run", llm, "--raw", "hi").out == "So\n"
    (_, options), *_ = llm.given
    assert options is not None
    assert options.shown_tokens == ()
