"""Vocabulary: the tokens of a model as bytes, for grammars. Knows no tokenizer beyond one function,
and no grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from octavo.constraint import Words


class Vocabulary:
    """What is `hidden` is no text: a control token, or one that stands for what cannot be read.
    `ends` end an answer, and are hidden too."""

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        hidden: Iterable[int],
        ends: Iterable[int],
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        """`encode`: how the model would spell a text, which a grammar that forces it follows."""
        self.tokens = tokens
        self.ends = frozenset(ends)
        self.hidden = frozenset(hidden) | self.ends
        self._encode = encode
        self._longest = max(map(len, tokens))
        texts = ((token, each) for each, token in enumerate(tokens) if each not in self.hidden)
        self._ids = {token: each for token, each in texts if token}

    @property
    def num_words(self) -> int:
        """Words of a mask of these tokens."""
        return -(-len(self.tokens) // 32)

    def words(self, allowed: Iterable[int]) -> Words:
        """A mask of these tokens."""
        bits = np.zeros(self.num_words * 32, np.uint8)
        bits[np.fromiter(allowed, np.int64)] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def spell(self, text: bytes) -> list[int]:
        """Tokens whose bytes are exactly these, as the model would spell them if it can be told;
        none where the vocabulary has no way to."""
        try:
            ids = list(self._encode(text.decode()))
        except UnicodeDecodeError:  # the text was cut in the middle of a character
            ids = []
        is_same = b"".join(self.tokens[each] for each in ids) == text
        return ids if is_same and self.hidden.isdisjoint(ids) else self._longest_first(text)

    def _longest_first(self, text: bytes) -> list[int]:
        ids = []
        at = 0
        while at < len(text):
            ends = range(min(len(text), at + self._longest), at, -1)
            end = next((end for end in ends if text[at:end] in self._ids), None)
            if end is None:
                return []
            ids.append(self._ids[text[at:end]])
            at = end
        return ids
