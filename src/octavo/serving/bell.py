"""Bell: what a thread sleeps by, until it is rung or until a time that was set.

Knows neither who sleeps nor what for.
"""

from __future__ import annotations

import queue
import threading
import time


class Bell:
    def __init__(self) -> None:
        self.due: float | None = None  # of the monotonic clock
        # A SimpleQueue may be rung anywhere, even where the garbage collector interrupts its `get`.
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Wake the sleeper, now or at once when it next sleeps. A finalizer may call it."""
        self._rings.put(None)

    def set(self, seconds: float | None) -> None:
        """Let it sleep for so many seconds at most, from now on; None: for ever."""
        self.due = None if seconds is None else time.monotonic() + seconds
        self.ring()  # it may sleep for too long

    def forget(self) -> None:
        """Take back what it was rung before."""
        while not self._rings.empty():
            self._rings.get_nowait()

    def sleep(self) -> bool:
        """Sleep until it is rung. True: the time that was set has come instead, and is over."""
        due, timeout = self.due, None
        if due is not None:
            timeout = min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX)
        try:
            self._rings.get(timeout=timeout)
        except queue.Empty:
            self.due = None
            return True
        return False
