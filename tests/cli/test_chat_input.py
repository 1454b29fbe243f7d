"""Messages of a chat at a real terminal: pastes, blocks, and what was said before.

Messages that come from a pipe are test_chat's.
"""

from __future__ import annotations

import json
import readline
import sys
from pathlib import Path
from typing import Any

import pytest

from octavo.cli import history
from octavo.cli.chat_input import ChatInput
from tests.cli.process import environ
from tests.cli.terminal import Session
from tests.cli.tiny_model import TINY

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


def at_terminal(home: Path, *command: str) -> Session:
    told = {**environ(), "OCTAVO_HOME": str(home), "TERM": "xterm"}
    told.pop("NO_COLOR", None)
    return Session([sys.executable, *command], told)


def keyboard(home: Path, hide: str = "") -> Session:
    """A process that reads messages until Ctrl-D."""
    return at_terminal(home, "-c", READ_ALL.format(hide=hide))


def enter(session: Session, *lines: str, prompt: str = ">>> ") -> None:
    """Type each line when `prompt` asks for it."""
    for line in lines:
        session.until(prompt)
        session.type(f"{line}\r")


def said(session: Session) -> Any:
    session.until(">>> ")
    session.type(CTRL_D)
    session.until("SAID")
    found = json.loads(session.until("END").removesuffix("END"))
    assert session.end() == 0
    return found


needs_readline = pytest.mark.skipif(
    "libedit" in (readline.__doc__ or ""), reason="libedit does not know pastes"
)


@needs_readline
def test_a_paste_is_one_message_and_is_there_the_next_time(home: Path) -> None:
    text = "".join(f"  line {n}\n" for n in range(30))
    with keyboard(home) as session:
        enter(session, PASTE.format(text.replace("\n", "\r")), "two\rtwo")
        session.until(">>> ")  # of the second line, which was typed ahead
        assert said(session) == [[text.rstrip(), False], ["two", False], ["two", False]]
    with keyboard(home) as session:
        enter(session, UP + UP)
        assert said(session) == [[text.rstrip(), False]]


@needs_readline
def test_a_block_goes_on_until_its_quotes_and_is_remembered_whole(home: Path) -> None:
    block = 'def f():\n    """Doc."""\n    return 1'  # with quotes of its own
    with keyboard(home) as session:
        enter(session, '"""')
        enter(session, PASTE.format(block.replace("\n", "\r")), '"""', prompt="... ")
        enter(session, UP)
        assert said(session) == [[block, True], [block, True]]
    module = '"""Doc."""\n\nx = 1'  # a paste that begins with quotes of its own is no block
    with keyboard(home) as session:
        enter(session, PASTE.format(module))
        assert said(session) == [[module, False]]


def test_ctrl_c_drops_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: ChatInput, prompt: str) -> str:
        line = typed.pop(0)
        if line == CTRL_C:
            raise KeyboardInterrupt
        return line

    typed = ['"""one', "two", CTRL_C, "three"]
    monkeypatch.setattr(ChatInput, "read_line", read)
    user = ChatInput()
    with pytest.raises(KeyboardInterrupt):
        user.next_message()
    assert user.next_message() == ("three", False)


def test_ctrl_d_says_that_a_block_has_no_end(home: Path) -> None:
    with keyboard(home) as session:
        enter(session, '"""one')
        session.until("... ")
        session.type(CTRL_D)
        session.until('has no end: close it with """')
        enter(session, "three")
        assert said(session) == [["three", False]]


def test_without_readline_a_paste_is_told_by_its_speed(home: Path) -> None:
    with keyboard(home, hide="sys.modules['readline'] = None") as session:
        enter(session, "one\r  two\rthree")
        assert said(session) == [["one\n  two\nthree", False]]


def test_answers_that_go_into_a_file_leave_readline_out_and_pastes_stay_one_message(
    home: Path,
) -> None:
    with keyboard(home, hide="sys.stdout = open(os.devnull, 'w')") as session:
        enter(session, "one\rtwo", "three")
        session.until(">>> ")
        session.type(CTRL_D)
        assert session.end() == 0
    assert history.load(home / "chat_history") == ["one\ntwo", "three"]


def test_what_readline_cannot_hold_ends_no_chat(home: Path) -> None:
    for text in ("one", "nul\0nul", "half \ud800", "two"):
        history.append(home / "chat_history", text)
    with keyboard(home) as session:
        enter(session, UP + UP)
        assert said(session) == [["one", False]]


@pytest.mark.parametrize(
    ("typed", "agrees"),
    [
        ("", True), ("y", True), (" YES ", True), ("n", False), ("later", False),
        (None, False),  # the end of the input
    ],
)  # fmt: skip
def test_enter_is_yes_and_the_end_of_the_input_is_no(
    monkeypatch: pytest.MonkeyPatch, typed: str | None, agrees: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ChatInput, "read_line", lambda self, prompt: asked.append(prompt) or typed)
    assert ChatInput().agrees("go on?") is agrees
    assert asked == ["go on? [Y/n] "]


@needs_readline
def test_a_chat_at_a_terminal(home: Path) -> None:
    with at_terminal(home, "-m", "octavo", "chat", TINY, "--max-tokens", "2", "--json") as session:
        session.until("Ctrl-D ends")
        enter(session, PASTE.format("a\rb\rc"))
        session.until("\x1b[2m[24 prompt tokens, 0 cached, ")
        session.until("\x1b[0m\r\n")
        enter(session, "d" * 99)
        enter(session, "", prompt="forget 1 turn and go on? [Y/n] ")
        session.until("forgot 1 turn, 0 left")
        session.until(">>> ")
        session.type(CTRL_D)
        session.until('{"messages": ')
        first, answer = json.loads(session.until("]").replace("\r", ""))
        assert (first["content"], answer["role"]) == ("d" * 99, "assistant")
        session.until("}\r\n")
        assert session.end() == 0
