"""Long texts: how many tokens one has at least, and where it may be cut so that its pieces have the
tokens of the whole.

Comes in: a `TokenizerSpec`, texts. Goes out: numbers and pieces. Encodes nothing.

A cut lies before a blank or a mark. In bpe every pre-tokenizer ends a word there (but BLOOM's, at
blanks alone): their expressions do not go on from a letter or a digit to one of these. In spm no
piece holds the two characters at the cut side by side, so that nothing joins over it, and the
second is no unknown one. No user-defined piece lies across.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from octavo.tokenizer.bpe import composes
from octavo.tokenizer.byte_level import byte_to_char
from octavo.tokenizer.pre_tokenizer import ends_words_at_marks
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.tokenizer.spm import SPACE

_MARKS = "\n\t.,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
# Marks end a word after what is a letter or a digit in every version of Unicode, blanks after what
# is one in any: neither side of a blank is ever white space then.
_LETTER = r"A-Za-z0-9\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
_BLANK_CUT = r"(?<=[^\W_]) "
_BPE_CUT = rf"{_BLANK_CUT}|(?<=[{_LETTER}])[{_MARKS}]"
_COMPOSED = 4  # bytes at most that become one when characters are composed


class TooManyTokensError(Exception):
    """A text has more tokens than the limit: at least `count`, those that were encoded."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the text has at least {count:,} tokens")
        self.count = count


class LongTexts:
    def __init__(self, spec: TokenizerSpec, longest_token_bytes: int) -> None:
        self._longest = longest_token_bytes
        self._composes = composes(spec)
        self._is_spm = spec.kind == "spm"
        # characters with a token of their own; in spm others have those of their bytes, if all do
        self._known = {
            piece
            for index, piece in enumerate(spec.tokens)
            if len(piece) == 1
            and spec.types[index] != TokenType.UNKNOWN
            and index not in spec.control_ids
            and index not in spec.byte_of
        }
        self._knows_all = len(spec.byte_of) == 256
        self._dropped = bytes(
            byte for byte, char in enumerate(byte_to_char()) if char not in self._known
        )
        marks = "".join(c for c in SPACE + _MARKS if self._knows_all or c in self._known)
        spm_cut = rf"(?s:(?<=.))[{marks.replace(SPACE, SPACE + ' ')}]" if marks else r"(?!)"
        bpe_cut = _BPE_CUT if ends_words_at_marks(spec.pre) else _BLANK_CUT
        self._cut = re.compile(spm_cut if self._is_spm else bpe_cut)
        unbroken = spec.tokens if self._is_spm else [spec.tokens[i] for i in spec.user_defined_ids]
        self._joined = {self._pair(p, at) for p in unbroken for at in self._cut.finditer(p)}

    def least_tokens(self, text: str) -> int:
        """Return how many tokens `text` has at least: by its bytes, but for those that may leave
        none."""
        if self._is_spm:
            if not self._knows_all:  # what is unknown is one token, however long
                blanks = text.replace(" ", SPACE)
                unknown = dict.fromkeys(map(ord, set(blanks) - self._known))
                text = blanks.translate(unknown)
            size = len(_utf8(text))
        else:
            size = len(_utf8(text).translate(None, self._dropped))
            if self._composes and not text.isascii():
                size = 0 if self._dropped else size // _COMPOSED
        return -(-size // self._longest)

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """`text` in pieces of `size` characters, and as many more as there are up to a cut."""
        start = 0
        while start < len(text):
            cuts = self._cut.finditer(text, start + size)
            end = next((c.start() for c in cuts if self._pair(text, c) not in self._joined), None)
            yield text[start:end]
            start = len(text) if end is None else end

    def _pair(self, text: str, cut: re.Match[str]) -> str:
        """The characters on both sides of it."""
        pair = text[cut.start() - 1 : cut.end()]
        return pair.replace(" ", SPACE) if self._is_spm else pair


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
