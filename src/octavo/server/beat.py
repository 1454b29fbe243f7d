"""Beat: when a stream writes its next piece.

What comes sooner waits for the gap of its stream, and on to a time that others come to as well: one
timer of the event loop then lets many of them write. Knows no streams.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

_GRID = 4  # times in a gap at which streams write


class Beat:
    """Its times are those of the event loop that it is used in."""

    def __init__(self) -> None:
        self._due: dict[float, list[Callable[[], None]]] = {}  # by when they are called

    def after(self, gap: float) -> float:
        """When a stream may write that wrote now; at any time, without a gap."""
        return next_time(gap, asyncio.get_running_loop().time()) if gap else 0.0

    def is_time(self, due: float) -> bool:
        return not due or asyncio.get_running_loop().time() >= due

    def at(self, due: float, turn: Callable[[], None]) -> None:
        """Have `turn` called at a time that `after` gave; without a gap, when others have run. It
        raises nothing."""
        if not due:
            asyncio.get_running_loop().call_soon(turn)
            return
        turns = self._due.get(due)
        if turns is None:
            turns = self._due[due] = []
            asyncio.get_running_loop().call_at(due, self._call_all, due)
        turns.append(turn)

    def _call_all(self, due: float) -> None:
        for turn in self._due.pop(due):
            turn()


def next_time(gap: float, now: float) -> float:
    """The time on the grid of this gap that is at least the gap away."""
    grid = gap / _GRID
    return math.ceil((now + gap) / grid) * grid
