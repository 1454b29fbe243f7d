"""Answers in Harmony's channels as a terminal shows them: like those of other models that reason,
reasoning first, between <think> and </think>. Any other model's are shown as they are.

Comes in: a chat template, and the text of answers in pieces. Goes out: what to show of them, and
what of a whole answer the conversation goes on with. Knows no engine and no screen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.protocol.answer import AnswerReader, Event, Text, collect, plain_reader
from octavo.protocol.tools.formats import ToolFormat
from octavo.protocol.tools.harmony.dialect import Harmony, is_harmony

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer


class Channels:
    def __init__(self, template: str | None, tokenizer: Tokenizer) -> None:
        is_so = template is not None and is_harmony(template)
        self._harmony = Harmony().told(template, {}) if is_so else None
        ids = [] if self._harmony is None else map(tokenizer.control_id, Harmony.shown_tokens)
        # Control tokens that a reader of answers must see, and that are shown as something else.
        self.shown_tokens = tuple(each for each in ids if each is not None)

    def reader(self) -> Shown:
        """Return the reader of what one answer shows."""
        return Shown(self._reader(inline=True))

    def shown(self, text: str) -> str:
        """Return what a whole answer shows."""
        reader = self.reader()
        return reader.push(text) + reader.finish()

    def said(self, text: str) -> str:
        """Return the text that the answer is in the next turn: without reasoning in a channel."""
        reader = self._reader(inline=False)
        return collect([*reader.push(text), *reader.finish()]).content or ""

    def _reader(self, *, inline: bool) -> AnswerReader:
        if self._harmony is None:
            return plain_reader()
        return AnswerReader(ToolFormat(replace(self._harmony, inline=inline)), None, None, str)


class Shown:
    """What one answer shows, piece by piece."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader

    def push(self, text: str) -> str:
        return _joined(self._reader.push(text))

    def finish(self) -> str:
        return _joined(self._reader.finish())


def _joined(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))
