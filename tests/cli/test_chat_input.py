"""Messages of a chat at a real terminal: pastes, blocks, and what was said before.

Messages that come from a pipe are test_chat's.
"""

from __future__ import annotations

import json
import os
import readline
import sys
from pathlib import Path

import pytest

from octavo.cli import history
from octavo.cli.chat_input import ChatInput
from tests.cli.terminal import Session
from tests.cli.test_app import SOURCES

PASTE = "\x1b[200~{}\x1b[201~"  # as a terminal marks it
UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"
READ_ALL = """
import json, os, sys
{hide}
from octavo.cli.chat_input import ChatInput
user = ChatInput()
said = []
while True:
    try:
        message = user.next_message()
    except ValueError as error:
        print(error)
        continue
    if message is None:
        break
    said.append([*message])
print("SAID" + json.dumps(said) + "END")
"""


def keyboard(home: Path, hide: str = "") -> Session:
    """A process that reads messages until Ctrl-D."""
    environment = {**os.environ, "PYTHONPATH": SOURCES, "OCTAVO_HOME": str(home), "TERM": "xterm"}
    return Session([sys.executable, "-c", READ_ALL.format(hide=hide)], environment)


def said(session: Session) -> list[list[object]]:
    session.type(CTRL_D)
    session.until("SAID")
    found = json.loads(session.until("END").removesuffix("END"))
    assert session.end() == 0
    return found


needs_readline = pytest.mark.skipif(
    "libedit" in (readline.__doc__ or ""), reason="libedit does not know pastes"
)


@needs_readline
def test_a_paste_is_one_message_and_is_there_the_next_time(home):
    text = "".join(f"  line {n}\n" for n in range(30))
    with keyboard(home) as session:
        session.until(">>> ")
        session.type(PASTE.format(text.replace("\n", "\r")) + "\r")
        session.until(">>> ")
        session.type("two\rtwo\r")
        assert said(session) == [[text.rstrip(), False], ["two", False], ["two", False]]
    with keyboard(home) as session:
        session.until(">>> ")
        session.type(UP + UP + "\r")
        session.until(">>> ")
        assert said(session) == [[text.rstrip(), False]]


@needs_readline
def test_a_block_goes_on_until_its_quotes_and_is_remembered_whole(home):
    with keyboard(home) as session:
        session.until(">>> ")
        session.type('"""\r')
        session.until("... ")
        session.type(
            PASTE.format('def f():\r    """Doc."""\r    return 1') + "\r"
        )  # its own quotes
        session.until("... ")
        session.type('"""\r')
        session.until(">>> ")
        session.type(UP + "\r")
        session.until(">>> ")
        block = 'def f():\n    """Doc."""\n    return 1'
        assert said(session) == [[block, True], [block, True]]


@needs_readline
def test_a_paste_that_begins_with_quotes_of_its_own_is_no_block(home):
    module = '"""Doc."""\n\nx = 1'
    with keyboard(home) as session:
        session.until(">>> ")
        session.type(PASTE.format(module) + "\r")
        session.until(">>> ")
        assert said(session) == [[module, False]]


def test_ctrl_c_drops_a_block(monkeypatch):
    def read(self: ChatInput, prompt: str) -> str:
        line = typed.pop(0)
        if line == CTRL_C:
            raise KeyboardInterrupt
        return line

    typed = ['"""one', "two", CTRL_C, "three"]
    monkeypatch.setattr(ChatInput, "_read", read)
    user = ChatInput()
    with pytest.raises(KeyboardInterrupt):
        user.next_message()
    assert user.next_message() == ("three", False)


def test_ctrl_d_says_that_a_block_has_no_end(home):
    with keyboard(home) as session:
        session.until(">>> ")
        session.type('"""one\r')
        session.until("... ")
        session.type(CTRL_D)
        session.until('has no end: close it with """')
        session.until(">>> ")
        session.type("three\r")
        session.until(">>> ")
        assert said(session) == [["three", False]]


def test_without_readline_a_paste_is_told_by_its_speed(home):
    with keyboard(home, hide="sys.modules['readline'] = None") as session:
        session.until(">>> ")
        session.type("one\r  two\rthree\r")
        session.until(">>> ")
        assert said(session) == [["one\n  two\nthree", False]]


def test_answers_that_go_into_a_file_leave_readline_out_and_pastes_stay_one_message(home):
    with keyboard(home, hide="sys.stdout = open(os.devnull, 'w')") as session:
        session.until(">>> ")
        session.type("one\rtwo\r")
        session.until(">>> ")
        session.type("three\r")
        session.until(">>> ")
        session.type(CTRL_D)
        assert session.end() == 0
    assert history.load(home / "chat_history") == ["one\ntwo", "three"]


def test_what_readline_cannot_hold_ends_no_chat(home):
    for text in ("one", "nul\0nul", "half \ud800", "two"):
        history.append(home / "chat_history", text)
    with keyboard(home) as session:
        session.until(">>> ")
        session.type(UP + UP + "\r")
        session.until(">>> ")
        assert said(session) == [["one", False]]


@pytest.mark.parametrize(
    ("typed", "agrees"), [("", True), ("y", True), (" YES ", True), ("n", False), ("later", False)]
)
def test_enter_is_yes(monkeypatch, typed, agrees):
    asked = []
    monkeypatch.setattr(ChatInput, "_read", lambda self, prompt: asked.append(prompt) or typed)
    assert ChatInput().agrees("go on?") is agrees
    assert asked == ["go on? [Y/n] "]


def test_the_end_of_the_input_is_no(monkeypatch):
    monkeypatch.setattr(ChatInput, "_read", lambda self, prompt: None)
    assert ChatInput().agrees("go on?") is False


@needs_readline
def test_a_chat_at_a_terminal(home, tiny):
    command = [sys.executable, "-m", "octavo", "chat", tiny, "--max-tokens", "2", "--json"]
    environment = {**os.environ, "PYTHONPATH": SOURCES, "OCTAVO_HOME": str(home), "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with Session(command, environment) as session:
        session.until("Ctrl-D ends")
        session.until(">>> ")
        session.type(PASTE.format("a\rb\rc") + "\r")
        session.until("\x1b[2m[24 prompt tokens, 0 cached, ")
        session.until("\x1b[0m\r\n")
        session.until(">>> ")
        session.type("d" * 99 + "\r")
        session.until("forget 1 turn and go on? [Y/n] ")
        session.type("\r")
        session.until("forgot 1 turn, 0 left")
        session.until(">>> ")
        session.type(CTRL_D)
        session.until('{"messages": ')
        first, answer = json.loads(session.until("]").replace("\r", ""))
        assert (first["content"], answer["role"]) == ("d" * 99, "assistant")
        session.until("}\r\n")
        assert session.end() == 0
