"""After: a constraint that begins behind a text, as an answer does behind its reasoning.

Until then all is allowed but an end token, and a token that has the end of the text and more: what
comes behind the text is the grammar's alone.
"""

from __future__ import annotations

from octavo.constraint import Constraint, ConstraintState, Words
from octavo.errors import ConstraintError
from octavo.grammar.vocabulary import Vocabulary


class After:
    def __init__(self, inner: Constraint, vocabulary: Vocabulary, text: str) -> None:
        self.inner = inner
        self.tokens = vocabulary.tokens
        self.text = text.encode()
        by_first: dict[bytes, list[int]] = {}  # or every token would be looked at for each byte
        for i, token in enumerate(self.tokens):
            by_first.setdefault(token[:1], []).append(i)
        every = vocabulary.words(set(range(len(self.tokens))) - vocabulary.ends)
        self.masks = []  # by bytes of the text that stand
        for begun in range(len(self.text)):
            first = self.text[begun : begun + 1]
            ids = by_first.get(first, ()) if begun else range(len(self.tokens))
            beyond = (i for i in ids if _goes_beyond(self.tokens[i], self.text, begun))
            self.masks.append(every & ~vocabulary.words(beyond))

    @property
    def vocabulary(self) -> object:
        return self.inner.vocabulary

    def start(self) -> ConstraintState:
        return AfterState(self)


class AfterState:
    def __init__(
        self, after: After, tail: bytes = b"", inner: ConstraintState | None = None
    ) -> None:
        self._after = after
        self._tail = tail  # of what was written, as much as may begin the text
        self._inner = inner  # once the text stands

    def fill_mask(self, words: Words) -> None:
        if self._inner is not None:
            self._inner.fill_mask(words)
            return
        masks = self._after.masks
        size = min(len(words), len(masks[0]))
        words[:size] = masks[0][:size]
        words[size:] = 0
        for begun in range(1, len(self._after.text)):
            if self._tail.endswith(self._after.text[:begun]):
                words[:size] &= masks[begun][:size]
        if not words.any():
            raise ConstraintError("no token of the model may be in front of the grammar")

    def accept(self, token: int) -> None:
        if self._inner is not None:
            self._inner.accept(token)
            return
        text = self._after.text
        written = self._tail + self._after.tokens[token]
        if written.endswith(text):
            self._inner = self._after.inner.start()
        self._tail = written[-len(text) + 1 :] if len(text) > 1 else b""

    def fork(self) -> ConstraintState:
        inner = None if self._inner is None else self._inner.fork()
        return AfterState(self._after, self._tail, inner)

    @property
    def is_done(self) -> bool:
        return self._inner is not None and self._inner.is_done


def _goes_beyond(token: bytes, text: bytes, begun: int) -> bool:
    """Whether a token has the end of the text and more, where `begun` bytes of it stand."""
    if begun == 0:
        return 0 <= token.find(text) < len(token) - len(text)
    rest = text[begun:]
    return len(token) > len(rest) and token.startswith(rest)
