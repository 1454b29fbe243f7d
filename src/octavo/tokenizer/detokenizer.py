"""Ids to text, one token at a time, as a stream shows it.

Comes in: ids. Goes out: whole characters only; the joined output equals `Tokenizer.decode` of all
ids. Knows no stop strings and no requests.
"""

from __future__ import annotations

import codecs
from collections.abc import Container

from octavo.tokenizer.tokenizer import Tokenizer


class Detokenizer:
    """One stream; `continuation` as in `decode`: true for what a model writes after a prompt.
    Tokens in `shown` are shown although special ones are skipped."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = True,
        continuation: bool = False,
        shown: Container[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._shown = shown
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_blank = tokenizer.spec.add_space_prefix and not continuation

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes, often none."""
        skips = self._skip_special and token_id not in self._shown
        data = self._tokenizer.shown_bytes(token_id, skip_special=skips)
        if data and self._drop_blank:
            data = data.removeprefix(b" ")
            self._drop_blank = False
        if data.isascii() and not self._utf8.buffer:  # as most are: nothing is cut
            return data.decode("ascii")
        return self._utf8.decode(data)

    def finish(self) -> str:
        """The end of the stream: a character that was cut becomes one U+FFFD."""
        return self._utf8.decode(b"", final=True)
