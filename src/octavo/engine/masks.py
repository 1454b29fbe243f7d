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
    def __init__(self, num_words: int, clock: Callable[[], float]) -> None:
        self.seconds = 0.0  # of all that were asked for, those of failed answers too
        self._num_words = num_words
        self._clock = clock

    def of(self, branch: Branch) -> Words | None:
        """What may come next, None if anything may. Raises ConstraintError."""
        if branch.constraint is None:
            return None
        words = np.empty(self._num_words, np.uint32)
        begin = self._clock()
        try:
            branch.constraint.fill_mask(words)
        finally:
            self.seconds += self._clock() - begin
        return words
