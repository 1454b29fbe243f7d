"""The header of a message: `<|channel|>analysis<|message|>`, or of a call
`<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>`.

Comes in: text from where a header may begin. Goes out: the header, None where there is none, or
`Short` where it ends too early to tell. The recipient may stand before the channel too, and behind
both the kind of what follows, with its tag or without. Knows no tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from octavo.protocol.tools.json_scanner import BLANKS

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, END, CALL, RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
TAGS = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)
ENDS = (END, CALL, RETURN)  # of a message
ROLE = "assistant"
BEGIN = START + ROLE
FUNCTIONS = "functions."  # before a tool's name, in a recipient

Channel = Literal["analysis", "commentary", "final"]
_CHANNELS: tuple[Channel, ...] = get_args(Channel)
_TO = "to="
_OF_WORD = frozenset("_.-:/+")  # beside letters and digits
_LONGEST_WORD = 160  # of a tool's name there are 128
_MOST_PARTS = 4  # between the channel and the message
_LONGEST = 512  # characters of a header


class Short(Exception):
    """The text may go on as a header."""


@dataclass(frozen=True, slots=True)
class Header:
    length: int  # characters, with all tags
    begin: int  # of them, those of `<|start|>assistant`
    channel: Channel | None  # None: one that nobody knows
    recipient: str | None

    @property
    def function(self) -> str | None:
        """The name of the function that it calls, if it calls one."""
        if self.recipient is None or not self.recipient.startswith(FUNCTIONS):
            return None
        return self.recipient.removeprefix(FUNCTIONS)


def read_header(text: str, *, begun: bool) -> Header | None:
    """Read the header. `begun`: the prompt, or what stands before, has `<|start|>assistant`
    already; it may be said once more. Raises Short."""
    try:
        return _read(_Cursor(text[:_LONGEST]), begun)
    except Short:
        if len(text) >= _LONGEST:
            return None
        raise


def _read(cursor: _Cursor, begun: bool) -> Header | None:
    cursor.skip_blanks()
    has_start = cursor.take(START)
    if not (cursor.take(ROLE) if has_start else begun):
        return None
    begin = cursor.at if has_start else 0
    cursor.skip_blanks()
    recipient = cursor.word() if cursor.take(_TO) else None
    cursor.skip_blanks()
    if not cursor.take(CHANNEL):
        return None
    name = cursor.word()
    for _ in range(_MOST_PARTS):
        cursor.skip_blanks()
        if cursor.take(MESSAGE):
            channel = next((each for each in _CHANNELS if each == name), None)
            return Header(cursor.at, begin, channel, recipient)
        if cursor.take(_TO):
            if recipient is not None:
                return None
            recipient = cursor.word()
        else:
            cursor.take(CONSTRAIN)
            if not cursor.word():
                return None
    return None


class _Cursor:
    """A place in a text; whoever takes something there raises Short where the text ends first."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def take(self, wanted: str) -> bool:
        found = self._text[self.at : self.at + len(wanted)]
        if found == wanted:
            self.at += len(wanted)
            return True
        if self.at + len(found) == len(self._text) and wanted.startswith(found):
            raise Short
        return False

    def skip_blanks(self) -> None:
        while self.at < len(self._text) and self._text[self.at] in BLANKS:
            self.at += 1

    def word(self) -> str:
        begin = self.at
        while self.at < len(self._text) and self.at - begin <= _LONGEST_WORD:
            c = self._text[self.at]
            if not (c.isascii() and c.isalnum()) and c not in _OF_WORD:
                return self._text[begin : self.at]
            self.at += 1
        if self.at - begin > _LONGEST_WORD:
            return ""
        raise Short
