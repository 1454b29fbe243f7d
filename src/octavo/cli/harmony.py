"""Answers in Harmony's channels as a terminal shows them: like those of other models that reason,
reasoning first, between <think> and </think>. Only for a model that writes them, since it takes
longer to import than an answer may wait. Knows no engine and no screen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.protocol.answer import AnswerReader, Event, Text, collect
from octavo.protocol.tools.formats import ToolFormat
from octavo.protocol.tools.harmony.dialect import Harmony

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer


class InChannels:
    """Tells what to show of answers, and what of one the conversation goes on with."""

    def __init__(self, template: str, tokenizer: Tokenizer) -> None:
        self._harmony = Harmony().told(template, {})
        ids = map(tokenizer.control_id, Harmony.shown_tokens)
        self.shown_tokens = tuple(each for each in ids if each is not None)

    def reader(self) -> ShownInChannels:
        return ShownInChannels(self._reader(inline=True))

    def said(self, text: str) -> str:
        reader = self._reader(inline=False)
        return collect([*reader.push(text), *reader.finish()]).content or ""

    def _reader(self, *, inline: bool) -> AnswerReader:
        return AnswerReader(ToolFormat(replace(self._harmony, inline=inline)), None, None, str)


class ShownInChannels:
    """Tells what one answer shows, piece by piece."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader

    def push(self, text: str) -> str:
        return _joined(self._reader.push(text))

    def finish(self) -> str:
        return _joined(self._reader.finish())


def _joined(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))
