"""Pooled: a request for an embedding draws nothing. What the head has of its prompt, after the
final norm, is the embedding: the row of the last token, or the mean of all rows.

The rows of a mean are added in the order of their positions, in float32, however the prompt was cut
into steps; the Request keeps the sum. Knows rows; knows no blocks and no text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from octavo.batch import Asked, FloatArray, Want
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Decision, HeadRow
from octavo.request import FinishReason


class Pooled:
    """One for all requests: it keeps nothing of any."""

    width_option = "n"
    num_candidates = 0
    goes_together = False

    def num_slots(self, request: Request) -> int:
        return 1

    def want(self, branch: Branch) -> Asked | None:
        """The rows of a mean are wanted as those of the prompt, each for itself."""
        return None if branch.request.every_row else Asked(Want.HIDDEN)

    def decide(self, request: Request, rows: Sequence[HeadRow]) -> Decision:
        return Decision(request, self, row_values=[row.hidden for row in rows], end="length")

    def close(self, request: Request, reason: FinishReason) -> None:
        """Do nothing: its one answer is empty."""


def embedding(request: Request) -> FloatArray | None:
    """(hidden,) of length 1; None of a request that wants none, or ended before its last row ran.
    Of a mean the number of rows says nothing, since the length is taken out."""
    if request.pooled is None or request.needs_every_row:
        return None
    exact = request.pooled.astype(np.float64)
    length = math.sqrt(math.fsum((exact * exact).tolist()))
    unit: FloatArray = (exact / (length or 1.0)).astype(np.float32)
    return unit
