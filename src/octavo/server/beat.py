"""Beat: when a stream writes its next piece.

Streams wait their gap, and on to a time that others come to as well: one timer of the event loop
then lets many of them write. Knows no streams.
"""

from __future__ import annotations

import asyncio
import math

_GRID = 4  # times in a gap at which streams write


class Beat:
    def __init__(self) -> None:
        self._waiting: dict[float, list[asyncio.Future[None]]] = {}  # by when they are woken

    async def wait(self, gap: float) -> None:
        """Wait at least `gap` seconds; without one only let others run."""
        if not gap:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        due = next_time(gap, loop.time())
        if due not in self._waiting:
            self._waiting[due] = []
            loop.call_at(due, self._wake, due)
        waiter = loop.create_future()
        self._waiting[due].append(waiter)
        await waiter

    def _wake(self, due: float) -> None:
        for waiter in self._waiting.pop(due):
            if not waiter.done():  # it was cancelled
                waiter.set_result(None)


def next_time(gap: float, now: float) -> float:
    """The time on the grid of this gap that is at least the gap away."""
    grid = gap / _GRID
    return math.ceil((now + gap) / grid) * grid
