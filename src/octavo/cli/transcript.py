"""Transcript: the token ids of a conversation, its answers as the model wrote them.

A chat template writes every turn anew from texts, and the ids of an answer's text may be others
than those that were drawn: from the first of these on nothing that is in the cache could be reused.
So the drawn ids take the place of the encoded ones wherever both read the same.

Comes in: ids as a template encodes the conversation, and ids that were drawn. Knows no messages and
no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer


class Transcript:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.clear()

    def clear(self) -> None:
        self._encoded: list[int] = []  # the last prompt, as the template had it
        self._sent: list[int] = []  # the same prompt, as the model read it
        self._drawn: list[int] = []  # the answer to it

    def prompt(self, encoded: list[int]) -> list[int]:
        """What to send for a conversation that is encoded so: `encoded` itself, unless it goes on
        from the last answer and reads the same there."""
        start = len(self._encoded)
        if not start or encoded[:start] != self._encoded:
            return encoded  # a new conversation, or the template rewrites what was said before
        rest = encoded[start:]
        end = next((i for i, t in enumerate(rest) if self._tokenizer.is_control(t)), None)
        if end is None or not self._read_the_same(rest[:end], self._drawn):
            return encoded
        return [*self._sent, *self._drawn, *rest[end:]]

    def note(self, encoded: list[int], sent: list[int], drawn: Sequence[int]) -> None:
        """An answer was drawn after `sent`, the prompt for `encoded`."""
        answer = list(drawn)
        if answer and self._tokenizer.is_control(answer[-1]):
            answer.pop()  # the template ends a turn in its own way
        self._encoded, self._sent, self._drawn = encoded, sent, answer

    def _read_the_same(self, encoded: list[int], drawn: list[int]) -> bool:
        """Blanks at the ends do not count: templates trim them."""
        if any(self._tokenizer.is_control(t) for t in drawn):
            return False
        texts = (self._tokenizer.decode(ids, continuation=True).strip() for ids in (encoded, drawn))
        return next(texts) == next(texts)
