"""`octavo chat`: lines in, answers out, from a pipe; and Ctrl-C in the middle of an answer."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cli.fake_llm import FakeLLM
from tests.cli.result import Octavo, Result

# Of a first turn with the fake.
FIGURES = "[1 prompt token, 2 cached, 100 tok/s · 2 new, 200 tok/s · KV 1 KiB]\n"


@pytest.fixture
def fake() -> FakeLLM:
    return FakeLLM(["Hel", "lo"])


@pytest.mark.parametrize(
    ("system", "lines", "prompts"),  # lengths of system, user, assistant, user
    [
        ([], "", []),
        ([], "one", [[3]]),
        (["--system", "Be nice"], "one\nthree\n\n/exit\nnever\n", [[7, 3], [7, 3, 5, 5]]),
        (["--system", "abc"], "one\n/reset\ntwo2\n", [[3, 3], [3, 4]]),
        ([], "one\n/system You are a cat\ntwo2\n/system\nthree\n", [[3], [13, 4], [5]]),
    ],
)
def test_each_turn_sends_the_whole_conversation_until_it_begins_anew(
    octavo: Octavo, fake: FakeLLM, system: list[str], lines: str, prompts: list[list[int]]
) -> None:
    result = octavo("chat", fake, *system, stdin=lines)
    assert (result.code, result.out) == (0, "Hello\n" * len(prompts))
    assert fake.prompts == prompts


def test_stats_and_help_go_to_stderr(octavo: Octavo, fake: FakeLLM) -> None:
    result = octavo("chat", fake, stdin="/stats\none\n/stats\n/help\n")
    assert result.out == "Hello\n"
    assert result.err.count("steps") == 2
    figures = (
        "cache: 2 of 1 prompt token reused from this process, 12.3 ms of prefill saved; "
        'diverged at token 2, " a": nothing kept goes on with it\n'
        "KV: 8 KiB for up to 256 tokens, context 128\n"
        "memory: weights 88.7 MiB, KV 0 B in use, 3 KiB kept for reuse\n"
        "blocks: 25.0 % of their slots held no token; 2 blocks evicted, 1 copied\n"
        "tokens: 5,678 computed, K and V of 91,011 read; 1 request preempted\n"
        "steps: 1,234 in 12.3 s, 987 ms of it in the model; 95 % of them took at most 12.3 ms\n"
    )
    assert figures in result.err
    assert result.err.count(FIGURES) == 1
    assert "/system TEXT" in result.err


@pytest.mark.parametrize(
    ("lines", "complaints", "forgotten"),
    [
        ("/hlep\none\n", ["unknown command '/hlep'; did you mean /help?"], ""),
        (b"ab\xff\none\n", ["the line is not UTF-8 at character 3"], ""),
        (
            "/exit this room?\n/reset 3\none\n/reset\n",
            [f"{word} stands alone: leave out what follows it" for word in ("/exit", "/reset")],
            "forgot 1 turn, 0 left\n",
        ),
    ],
)
def test_a_line_that_is_refused_is_survived(
    octavo: Octavo, fake: FakeLLM, lines: str | bytes, complaints: list[str], forgotten: str
) -> None:
    said = "".join(f"octavo: {complaint}\n" for complaint in complaints)
    assert octavo("chat", fake, stdin=lines) == Result(0, "Hello\n", said + FIGURES + forgotten)
    assert fake.prompts == [[3]]


def test_piped_lines_lose_an_editors_mark_and_line_ends(octavo: Octavo, fake: FakeLLM) -> None:
    result = octavo("chat", fake, "--json", stdin=b"\xef\xbb\xbf/system abc\r\none\r\n")
    assert result.said("system", "user", "assistant") == ["abc", "one", "Hello"]
    result = octavo("chat", fake, stdin="\ufeffone".encode("utf-16-le"))
    assert result.err == "octavo: the line is UTF-16: give it as UTF-8\n"


def test_ctrl_c_stops_the_answer_not_the_program(octavo: Octavo, fake: FakeLLM) -> None:
    def press(index: int) -> None:
        if index == 1 and len(fake.prompts) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    fake.pieces, fake.between = ["Hel", "lo", " world"], press
    before = signal.getsignal(signal.SIGINT)
    result = octavo("chat", fake, "--json", stdin="one\ntwo2\n")
    assert result.code == 0
    shown, figures = result.err.split("[3 prompt")
    assert shown == "Hello [stopped]\nHello world\n"
    assert figures.count("\n") == 1
    assert fake.aborted == 1  # the request was closed, so its blocks are free
    assert fake.prompts == [[3], [3, 5, 4]]  # what was said before the stop stays
    assert result.said("user", "assistant") == ["one", "Hello", "two2", "Hello world"]
    assert len(result.json["turns"]) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_program(octavo: Octavo, fake: FakeLLM) -> None:
    def press_twice(index: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    fake.between = press_twice
    assert octavo("chat", fake, stdin="one\n").code == 130


def test_json_is_the_conversation_in_one_line(octavo: Octavo, fake: FakeLLM) -> None:
    result = octavo("chat", fake, "--json", stdin="one\n")
    assert result.out.count("\n") == 1
    assert result.json["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "Hello"},
    ]
    assert result.json["turns"][0]["usage"]["completion_tokens"] == 2


def test_forget_takes_a_number_and_keeps_the_system_message(octavo: Octavo, fake: FakeLLM) -> None:
    lines = ["one", "three", "seven77", "/forget 2", "/forget", "/forget 9", "/forget -1", "x"]
    result = octavo("chat", fake, "--system", "Be nice", "--quiet", stdin="\n".join(lines))
    assert fake.prompts[2:] == [[7, 3, 5, 5, 5, 7], [7, 1]]
    forgotten = "forgot 2 turns, 1 left\nforgot 1 turn, 0 left\nforgot 0 turns, 0 left\n"
    complaint = "octavo: /forget -1: expected a number of turns\n"
    assert result == Result(0, "Hello\n" * 4, forgotten + complaint)  # quiet: without figures


def test_a_block_is_one_message_and_never_a_command(octavo: Octavo, fake: FakeLLM) -> None:
    lines = ['"""', "one", "  two", '"""', '"""/exit"""', '""" a', 'b """', "", '""""""', "end"]
    result = octavo("chat", fake, "--json", stdin="\n".join(lines))
    assert result.said("user") == ["one\n  two", "/exit", " a\nb ", "end"]
    result = octavo("chat", fake, "--quiet", "--json", stdin='one\n"""two\nthree\n')
    assert result.code == 0
    assert result.err.endswith('\noctavo: the text that """ begins has no end: close it with """\n')
    assert result.said("user") == ["one"]


def test_answers_side_by_side_are_no_chat(octavo: Octavo) -> None:
    text = octavo("chat", "--help").out
    for flag in ("--n ", "--beam-width", "--prompt-logprobs", "--early-stopping"):
        assert flag not in text
    assert "--stats" in text
