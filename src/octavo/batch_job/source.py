"""The batch file that comes in: which lines hold a request, and what is wrong with the others.

The whole file is read and checked once, before anything runs; of a line only its place and its key
are kept, and it is read again when its turn comes. Blank lines are passed over.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from octavo.errors import UsageError
from octavo.given_text import without_mark
from octavo.protocol.batch import BatchLine, BatchLineError, parse_body, parse_line
from octavo.protocol.bodies import BodyError
from octavo.protocol.chat import ChatRequest
from octavo.protocol.completions import CompletionRequest


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that will not run."""

    number: int  # of the line, from 1
    custom_id: str | None
    error: BatchLineError | BodyError


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that will be answered."""

    custom_id: str
    request: ChatRequest | CompletionRequest


class Source:
    """`keys` has one entry a line that is not blank; what follows is by its index there."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where the file is no text or cannot be read twice."""
        self.path = path
        self.keys: list[bytes] = []  # of a request: the same for the same custom_id, url and body
        self.faults: dict[int, Fault] = {}
        self.models: dict[str, int] = {}  # named by a request -> number of the first such line
        self.first_chat: int | None = None  # number of the first line that needs a chat template
        self._numbers = array("Q")
        self._starts = array("Q")
        self._file = _open(path)
        digest = hashlib.sha256()
        seen: dict[str, int] = {}
        for number, start, text in _lines(self._file):
            digest.update(text)
            if self._text(start, text).strip():
                self._add(number, start, text, seen)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.keys)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def number(self, index: int) -> int:
        return self._numbers[index]

    def read(self, index: int) -> Entry:
        """The request of a line without a fault."""
        self._file.seek(self._starts[index])
        text = self._text(self._starts[index], self._file.readline())
        try:
            line = parse_line(text)
        except BatchLineError:
            line = None
        if line is None or _key(line.content()) != self.keys[index]:
            raise UsageError(f"{self.path} was changed while it ran: run it again to go on")
        return Entry(line.custom_id, parse_body(line))

    def _text(self, start: int, text: bytes) -> bytes:
        return text if start else without_mark(str(self.path), text)

    def _add(self, number: int, start: int, text: bytes, seen: dict[str, int]) -> None:
        index, custom_id = len(self.keys), None
        self._numbers.append(number)
        self._starts.append(start)
        try:
            line = parse_line(self._text(start, text))
            custom_id = line.custom_id
            _refuse_second(line, number, seen)
            request = parse_body(line)
        except (BatchLineError, BodyError) as error:
            self.keys.append(_key(b"%d:%s" % (number, text)))
            known = error.custom_id if isinstance(error, BatchLineError) else custom_id
            self.faults[index] = Fault(number, known, error)
            return
        self.keys.append(_key(line.content()))
        if request.model is not None:
            self.models.setdefault(request.model, number)
        if self.first_chat is None and isinstance(request, ChatRequest):
            self.first_chat = number


def _refuse_second(line: BatchLine, number: int, seen: dict[str, int]) -> None:
    """Results are found by custom_id, so the first line has it and any other is at fault."""
    first = seen.setdefault(line.custom_id, number)
    if first != number:
        raise BatchLineError(
            "duplicate_custom_id",
            f"custom_id {line.custom_id!r} is that of line {first}: give each its own",
            line.custom_id,
        )


def _open(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        if not file.seekable():
            raise UsageError(f"{path} is a pipe, and lines are read twice: give a file")
        without_mark(str(path), file.read(4))  # refuses other encodings before any line
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(number, start, text) of each line; only a newline ends one."""
    start = 0
    for number, text in enumerate(file, start=1):
        yield number, start, text
        start += len(text)


def _key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]
