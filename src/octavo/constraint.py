"""Constraint: what an answer may say, token by token. A request asks for one; the engine asks its
state which tokens may come next, and tells it which one came.

Here are only the shapes: `octavo.grammar` makes constraints, the engine knows no grammar.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]  # (ceil(vocab / 32),): bit t % 32 of word t // 32 = token t is allowed


@runtime_checkable
class Constraint(Protocol):
    """One for any number of requests, at once or one after the other."""

    @property
    def vocabulary(self) -> object:
        """The vocabulary that it was made for: it fits no other."""

    def start(self) -> ConstraintState:
        """Return the state before the first token of an answer."""


class ConstraintState(Protocol):
    """Where one answer is: a function of the tokens it accepted, whatever masks were asked for."""

    def fill_mask(self, words: Words) -> None:
        """Allow what may follow, and nothing else; tokens beyond the vocabulary never. Changes no
        state. Raises ConstraintError where nothing may follow, or the answer is beyond limits."""

    def accept(self, token: int) -> None:
        """An allowed token was appended. Raises nothing: what went wrong, the next mask says."""

    def fork(self) -> ConstraintState:
        """Another answer with the same tokens so far."""

    @property
    def is_done(self) -> bool:
        """Whether the answer is whole: only an end token may follow."""
