"""Where words go: a verb's text on standard output, or on standard error when JSON has the output.

With --json standard output holds one line, the object. Knows no verbs. Nothing else in the command
line writes to a terminal, so that no file's or model's text reaches one raw: what moves its cursor,
sets its title or turns its writing round is shown as an escape, wherever the output goes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from octavo.environment import may_style

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"

# C0 but tab and newline, DEL, C1, line and paragraph separators, bidirectional embeddings and
# isolates, lone surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""`text` with its control characters as Python spells them, \x1b; newlines and tabs stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """`printable`, newlines and tabs too: for a name or a message that must not look like more."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


@dataclass(frozen=True, slots=True)
class Screen:
    as_json: bool
    quiet: bool = False  # no figures

    def say(self, text: str = "") -> None:
        """A line of the answer."""
        self.write(f"{text}\n")

    def write(self, text: str) -> None:
        """A piece of a line, shown at once."""
        _show(text, sys.stderr if self.as_json else sys.stdout)

    def note(self, text: str) -> None:
        """A line about the answer, wrapped at words on a terminal."""
        _write(f"{_fit(text)}\n", sys.stderr)

    def figures(self, text: str) -> None:
        """Write what an answer took, as a note: dim on a terminal."""
        if not self.quiet:
            dim, plain = (_DIM, _PLAIN) if sys.stderr.isatty() and may_style() else ("", "")
            _write(f"{dim}{_fit(text)}{plain}\n", sys.stderr)

    def error(self, message: str) -> None:
        """Write what went wrong, on one line."""
        self.note(f"octavo: {one_line(message)}")

    def result(self, found: Mapping[str, object]) -> None:
        """The JSON object; call it last."""
        if self.as_json:
            text = json.dumps(found, allow_nan=False)
            _show(text.replace("\x7f", "\\u007f") + "\n", sys.stdout)  # DEL, which JSON leaves


class LogLines(logging.Handler):
    """Shows what libraries log as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        with contextlib.suppress(OSError):  # stderr may be closed
            _show((text if record.exc_info else one_line(text)) + "\n", sys.stderr)


def _show(text: str, stream: TextIO) -> None:
    _write(printable(text), stream)


def _write(text: str, stream: TextIO) -> None:
    stream.write(text)
    stream.flush()


def _fit(note: str) -> str:
    """Printable, and no line broken inside a word or between a number and its unit, if standard
    error is a terminal that knows its width."""
    text, width = printable(note), 0
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
    if not width:
        return text
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = [wrap.fill(re.sub(r"(?<=\d) ", "\xa0", line)) for line in text.split("\n")]
    return "\n".join(lines).replace("\xa0", " ")
