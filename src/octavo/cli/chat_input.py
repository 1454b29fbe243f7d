'''What the user of a chat says, one message after another.

A line is a message. So is a block, which a line that begins with """ begins and the first line
that ends with """ ends; and so is a text that is pasted at a terminal, however many lines it has.
What was said at a terminal can be called back, in later chats too. Knows no commands and no model.
'''

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable
from typing import NamedTuple

from octavo.cli import history
from octavo.environment import find_home
from octavo.errors import UsageError

QUOTES = '"""'
PROMPT, GOES_ON = ">>> ", "... "
_PASTE_GAP = 0.05  # seconds between lines of a paste, at most; nobody types a line in that time


class Message(NamedTuple):
    text: str
    is_block: bool


class ChatInput:
    def __init__(self) -> None:
        self.at_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._knows_pastes = False
        self._remember: Callable[[str], None] = lambda text: None
        if self.at_terminal:
            self._use_readline()

    def next_message(self) -> Message | None:
        """None at the end of the input; UsageError where that is inside a block."""
        typed = self.read_line(PROMPT)
        if typed is None:
            return None
        start = typed.strip()
        if start.startswith(QUOTES) and not any(map(_ends_block, start[3:].split("\n"))):
            typed = "\n".join([typed, *self._rest_of_block()])
        self._remember(typed)
        return _message(typed)

    def agrees(self, question: str) -> bool:
        answer = self.read_line(f"{question} [Y/n] ")
        return answer is not None and answer.strip().lower() in ("", "y", "yes")

    def _rest_of_block(self) -> list[str]:
        found = [""]
        while not _ends_block(found[-1]):
            more = self.read_line(GOES_ON)
            if more is None:
                raise UsageError(
                    f"the text that {QUOTES} begins has no end: close it with {QUOTES}"
                )
            found.append(more)
        return found[1:]

    def read_line(self, prompt: str) -> str | None:
        """A line; at a terminal also a paste of several. None at the end of the input."""
        if sys.stdin is None:  # closed by the caller, as in `octavo chat … <&-`
            return None
        try:
            if not self.at_terminal:
                return input()
            # The prompt must not get among answers that go into a file.
            with contextlib.redirect_stdout(sys.stdout if sys.stdout.isatty() else sys.stderr):
                text = input(prompt)
                while not self._knows_pastes and _is_more_there():
                    text += "\n" + input()
                return text
        except EOFError:
            return None

    def _use_readline(self) -> None:
        try:
            import readline  # its import alone changes how input() reads
        except ImportError:  # a Python built without it
            return
        # Answers that go into a file leave readline out of it: see `read_line`.
        self._knows_pastes = sys.stdout.isatty() and "libedit" not in (readline.__doc__ or "")
        if self._knows_pastes:
            readline.parse_and_bind("set enable-bracketed-paste on")  # Python turns it off
        readline.set_auto_history(False)  # a block is remembered whole, an answer to us not at all
        folder = find_home()
        path = None if folder is None else folder / "chat_history"
        said = [] if path is None else history.load(path)

        def recall(text: str) -> None:
            with contextlib.suppress(ValueError):  # a NUL in it, which readline cannot hold
                readline.add_history(text)

        for text in said:
            recall(text)

        def remember(text: str) -> None:
            if text.strip() and said[-1:] != [text]:
                said.append(text)
                recall(text)
                if path is not None:
                    history.append(path, text)

        self._remember = remember


def _ends_block(line: str) -> bool:
    return line.rstrip().endswith(QUOTES)


def _message(typed: str) -> Message:
    start = typed.strip()
    if start.startswith(QUOTES) and start[3:].endswith(QUOTES):
        return Message(start[3:-3].strip("\n"), is_block=True)
    if "\n" not in start:
        return Message(start, is_block=False)
    return Message(typed.strip("\n").rstrip(), is_block=False)  # the first line stays indented


def _is_more_there() -> bool:
    """Whether a line waits: without marks around it a paste is told by its speed. A last line that
    has no end of its own is not seen, and waits for the next message."""
    return bool(select.select([sys.stdin], [], [], _PASTE_GAP)[0])
