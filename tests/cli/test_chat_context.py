"""`octavo chat` on a tiny model: the context fills, is made room in, and is not computed twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from octavo.cli.chat_input import Message
from octavo.cli.loading import open_llm
from octavo.request import StreamChunk
from tests.cli.result import Octavo, Result
from tests.cli.tiny_model import TINY

GREEDY = ("--temperature", "0", "--max-tokens", "4")


def used(result: Result, name: str) -> list[int]:
    return [turn["usage"][name] for turn in result.json["turns"]]


def test_a_conversation_that_outgrows_the_context_is_said_and_can_be_reset(octavo: Octavo) -> None:
    lines = f"{'x' * 100}\nhi\n/reset\nhi\n"
    result = octavo("chat", TINY, *GREEDY, "--json", stdin=lines)
    assert result.code == 0
    assert "128" in result.err
    assert used(result, "prompt_tokens") == [119, 21]
    assert len(result.json["messages"]) == 2
    # A real model talks.
    result = octavo("chat", TINY, *GREEDY, stdin="hi\n")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert result.out.endswith("\n")
    assert result.err.startswith("[21 prompt tokens, 0 cached, ")


# Of the tiny model a turn is 19 tokens and its text, and the last answer of 4 is in the next one.
FULL = ["a" * 30, "b" * 20, "c" * 20]  # 49, 49 + 4 + 2 + 39 = 94, more than 128


def test_a_conversation_that_outgrows_a_pipe_names_the_way_out(octavo: Octavo) -> None:
    result = octavo("chat", TINY, *GREEDY, "--json", stdin="\n".join([*FULL, "/forget", FULL[2]]))
    assert result.code == 0
    assert "; /forget 1 makes room, /reset forgets all\n" in result.err
    assert "\nforgot 1 turn, 1 left\n" in result.err
    assert result.said("user") == FULL[1:]


@pytest.mark.parametrize(("agrees", "kept"), [(True, FULL[1:]), (False, FULL[:2])])
def test_a_conversation_that_outgrows_a_terminal_offers_a_way_out(
    octavo: Octavo, monkeypatch: pytest.MonkeyPatch, agrees: bool, kept: list[str]
) -> None:
    asked = []

    class User:
        at_terminal = True

        def __init__(self) -> None:
            self._messages = [Message(text, is_block=False) for text in FULL]

        def next_message(self) -> Message | None:
            return self._messages.pop(0) if self._messages else None

        def agrees(self, question: str) -> bool:
            asked.append(question)
            return agrees

    monkeypatch.setattr("octavo.cli.chat.ChatInput", User)
    result = octavo("chat", TINY, *GREEDY, "--json")
    assert asked == ["forget 1 turn and go on?"]
    assert "\nthe conversation no longer fits the context of 128 tokens\n" in result.err
    assert result.said("user") == kept


def test_as_many_turns_are_forgotten_as_leave_a_quarter_of_the_context(octavo: Octavo) -> None:
    result = octavo("chat", TINY, *GREEDY, stdin=f"a\nb\nc\n{'d' * 40}\n")
    assert "; /forget 2 makes room, " in result.err
    result = octavo("chat", TINY, *GREEDY, stdin=f"hi\n{'x' * 200}\n")
    assert result.code == 0
    assert "the context holds 128" in result.err
    assert "/forget" not in result.err  # a message that is too long alone has no way out


def test_an_answer_that_fills_the_context_says_what_can_be_done(octavo: Octavo) -> None:
    flags = ("--temperature", "0", "--ignore-eos", "--quiet")
    assert octavo("chat", TINY, *flags, stdin="hi\n").err.endswith(
        "the answer was cut: the context of 128 tokens is full; "
        "/forget drops the oldest turns, /reset all of them\n"
    )


def test_the_next_turn_computes_only_what_is_new(octavo: Octavo) -> None:
    """The tiny model's answers are no UTF-8: encoded anew, they would be other ids."""
    llm = open_llm(TINY, {})
    result = octavo("chat", llm, *GREEDY, "--json", "--stats", stdin="hi\nyo\nabc\n")
    turns = result.json["turns"]
    drawn = [turn["outputs"][0]["token_ids"] for turn in turns]
    prompts = [turn["prompt_token_ids"] for turn in turns]
    text = turns[0]["outputs"][0]["text"]
    assert "\ufffd" in text
    assert llm.tokenizer.encode(text) != drawn[0]
    for before, answer, after in zip(prompts, drawn, prompts[1:], strict=False):
        assert after[: len(before) + 4] == before + answer
    # Of 4 drawn tokens the last was never computed; a turn's own words are 23 and 24 tokens.
    assert used(result, "cached_tokens") == [0, 21 + 3, 21 + 4 + 23 + 3]
    firsts = [r.computed_tokens for r in llm.records if r.computed_tokens > 1]
    assert firsts == [21, 1 + 23, 1 + 24]
    assert "[48 prompt tokens, 24 cached, " in result.err
    assert "\ncache: 51 of 76 prompt tokens reused from this process" in result.err
    assert result.json["stats"]["steps"] == sum(len(ids) for ids in drawn)


def test_after_a_stopped_answer_and_after_reset_the_cache_is_used_too(
    octavo: Octavo, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, turns = open_llm(TINY, {}), count()
    stream = llm.stream

    def press(*arguments: Any) -> Iterator[StreamChunk]:
        turn = next(turns)
        for index, chunk in enumerate(stream(*arguments)):
            if (turn, index) == (0, 1):
                os.kill(os.getpid(), signal.SIGINT)
            yield chunk

    monkeypatch.setattr(llm, "stream", press)
    result = octavo("chat", llm, *GREEDY, "--json", stdin="hi\nyo\n/reset\nhi\n")
    assert " [stopped]" in result.err
    # Two were read before the stop; the engine may have been ahead of the reader.
    assert used(result, "cached_tokens")[0] in (21 + 1, 21 + 2)
    assert result.json["turns"][1]["cache"] == {
        "matched_tokens": 20, "source": "process", "reason": None, "diverged_at": None,
        "diverged_text": None, "saved_ms": None, "known_tokens": None, "sliding_context": None,
        "let_go_tokens": None,
    }  # fmt: skip


def test_a_conversation_that_slides_goes_on_without_end(octavo: Octavo) -> None:
    """Each turn computes what is new; the context of 128 was full after the second."""
    llm = open_llm(TINY, {"sliding_context": 64})
    words = [chr(97 + i) * 30 for i in range(10)]
    result = octavo("chat", llm, *GREEDY, "--json", "--stats", stdin="\n".join(words))
    assert result.code == 0
    assert result.said("user") == words
    prompts = used(result, "prompt_tokens")
    # A turn is 19 tokens and its text; 4 of its answer and 2 more come into the next prompt.
    assert prompts == [49 + 55 * turn for turn in range(10)]
    # Of the answer the last token was never computed.
    assert used(result, "cached_tokens") == [0, *(prompt + 3 for prompt in prompts[:-1])]
    last = result.json["turns"][-1]["cache"]
    assert (last["sliding_context"], last["let_go_tokens"]) == (64, prompts[-1] + 3 - 64)
    assert f" · {last['let_go_tokens']:,} let go]" in result.err
    assert f"; {last['let_go_tokens']:,} tokens let go so far" in result.err
    assert "a context of 64 that slides" in result.err
    assert "forget" not in result.err


def test_an_answer_that_slides_is_cut_where_no_length_was_asked_for(octavo: Octavo) -> None:
    flags = ("--temperature", "0", "--ignore-eos", "--quiet")
    cut = "the answer was cut after 64 tokens: --max-tokens asks for more\n"
    llm = open_llm(TINY, {"sliding_context": 64})
    assert octavo("chat", llm, *flags, stdin="hi\n").err.endswith(cut)
    assert octavo("run", llm, "hello", *flags).err == cut
    assert octavo("run", llm, "hello", *flags, "--max-tokens", "64").err == ""
