"""Masks: what the constraint of an answer allows next, for the one row that is drawn from it, and
the seconds that finding this out has taken so far.

Knows constraints; knows no logits and no blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from octavo.constraint import Words
from octavo.engine.nouns import Branch


class Masks:
    def __init__(self, vocab_size: int, clock: Callable[[], float]) -> None:
        self.seconds = 0.0  # of all that were asked for, those of failed answers too
        self._words: Words = np.empty(-(-vocab_size // 32), np.uint32)
        self._clock = clock

    def of(self, branch: Branch) -> Words | None:
        """What may come next, None if anything may; it holds until the next one is asked for.
        Raises ConstraintError."""
        if branch.constraint is None:
            return None
        begin = self._clock()
        try:
            branch.constraint.fill_mask(self._words)
        finally:
            self.seconds += self._clock() - begin
        return self._words
