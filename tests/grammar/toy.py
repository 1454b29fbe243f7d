"""A toy vocabulary, and a walk through what a grammar allows of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.constraint import Constraint, ConstraintState, Words
from octavo.grammar import Grammars, GrammarSpec, Vocabulary

CONTROL, UNREADABLE, EMPTY, END, OTHER_END = 0, 1, 2, 3, 4
TOKENS = [
    *(b"<|im_start|>", b"\xef\xbf\xbd", b"", b"<|im_end|>", b"<eos>"),
    *(bytes([byte]) for byte in range(256)),
    *(b'{"', b'":', b"true", b"</", b"k>{", b"\n\n", b"think>", b"x</think>", b"</think>1"),
]
BYTE = 5  # the token of byte b is BYTE + b
NUM_WORDS = 12  # the model's head has more rows than there are tokens


def longest_first(text: str) -> list[int]:
    """As a tokenizer does that knows these tokens alone."""
    data, ids = text.encode(), []
    while data:
        found = max((t for t in TOKENS[BYTE:] if data.startswith(t)), key=len)
        ids.append(TOKENS.index(found, BYTE))
        data = data[len(found) :]
    return ids


def vocabulary(ends: Sequence[int] = (END, OTHER_END)) -> Vocabulary:
    hidden = [CONTROL, UNREADABLE, END, OTHER_END]
    return Vocabulary(TOKENS, hidden=hidden, ends=ends, encode=longest_first)


GRAMMARS = Grammars(vocabulary)


def compiled(spec: GrammarSpec) -> Constraint:
    return GRAMMARS.compile(spec)


def mask(state: ConstraintState) -> Words:
    words = np.full(NUM_WORDS, 0xFFFFFFFF, np.uint32)
    state.fill_mask(words)
    return words


def allowed(state: ConstraintState) -> set[int]:
    bits = np.unpackbits(mask(state).view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def texts(state: ConstraintState) -> set[bytes]:
    """What may follow, ends left out."""
    return {TOKENS[each] for each in allowed(state) - {END, OTHER_END}}


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether a text is a whole answer, byte by byte."""
    state = constraint.start()
    for byte in text.encode():
        if state.is_done or BYTE + byte not in allowed_bytes(state, byte):
            return False
        state.accept(BYTE + byte)
    return state.is_done or END in allowed(state)


def allowed_bytes(state: ConstraintState, byte: int) -> set[int]:
    """What is allowed; a text that has to follow is allowed in the model's own tokens alone, so a
    byte that begins one of those counts too."""
    found = allowed(state)
    begun = {BYTE + TOKENS[each][0] for each in found if each >= BYTE}
    return found | begun
