"""OpenRequests: the requests of an AsyncEngine that have not ended, and how many more may come.

Knows queues, and nothing of what is in them.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from octavo.errors import EngineClosedError, OverloadedError, counted
from octavo.serving.output_queue import OutputQueue


class OpenRequests:
    """Any thread may call it; a finalizer only `release`."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._lock = threading.Lock()  # never held for longer than a look
        self._queues: dict[OutputQueue, None] = {}
        self._most_waiting = 0  # as many as wait, or more: who begins is not told here
        self._accepts = True
        self.all_ended: Future[None] = Future()  # done after `stop_accepting`, when they have
        self.all_ended.set_running_or_notify_cancel()  # who stops waiting for it cancels only that

    @property
    def is_closed(self) -> bool:
        """Whether no more may come, and all have ended."""
        return not (self._accepts or self._queues)

    def enter(self, output: OutputQueue) -> None:
        """Take a place, which `leave` gives back. Raises EngineClosedError, OverloadedError."""
        with self._lock:
            if not self._accepts:
                raise EngineClosedError(
                    "the engine is closed and takes no new requests: make a new AsyncEngine"
                )
            if self._most_waiting >= self._max_waiting:
                self._most_waiting = sum(q.is_waiting for q in self._queues)
            if self._most_waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{counted(self._most_waiting, 'request')} in the queue, and at most "
                    f"{self._max_waiting:,} may wait: try again later, or raise max_waiting"
                )
            self._queues[output] = None
            self._most_waiting += 1

    def leave(self, output: OutputQueue) -> None:
        """The request has ended; it may be said twice."""
        with self._lock:
            self._queues.pop(output, None)
            self._look_for_the_end()

    def stop_accepting(self) -> list[OutputQueue]:
        """Let no more in; return those that are open."""
        with self._lock:
            self._accepts = False
            self._look_for_the_end()
            return list(self._queues)

    def release(self) -> None:
        """Let no more in, since nobody is left to ask; the garbage collector may call it."""
        self._accepts = False

    def _look_for_the_end(self) -> None:
        if self.is_closed and not self.all_ended.done():
            self.all_ended.set_result(None)
