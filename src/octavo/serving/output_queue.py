"""OutputQueue: where the thread that reads some requests waits for what comes of them.

The engine's thread puts in what each step gave, or how a request ended. Knows no engine and no
text.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from octavo.engine.nouns import Request
from octavo.request import RequestOutput, StreamChunk


@dataclass(slots=True)
class Update:
    """What a step gave one request of a queue: pieces of text, its output when it has ended, and
    the error that ended it. One with an error alone ends all requests of the queue."""

    index: int = 0  # of the request
    chunks: Sequence[StreamChunk] = ()  # the last one of all has the output too
    output: RequestOutput | None = None
    error: Exception | None = None
    trace: TracebackType | None = field(init=False, default=None)  # of it, before it is raised

    def __post_init__(self) -> None:
        if self.error is not None:
            self.fail(self.error)

    def fail(self, error: Exception) -> None:
        """Tell an error, which readers of other requests may be told too: each raises it with the
        traceback that it has now, for whoever raises one adds to what it has by then."""
        self.error, self.trace = error, error.__traceback__

    @property
    def ends(self) -> bool:
        return self.output is not None or self.error is not None


class OutputQueue:
    """A queue of outputs that one thread reads. As a context it cancels what has not
    ended when nobody reads any more."""

    def __init__(
        self, cancel: Callable[[OutputQueue], None], num_requests: int, *, streams: bool = False
    ) -> None:
        """`streams`: are pieces wanted, or only the ends?"""
        self.num_left = num_requests  # whose end was not read
        self.streams = streams
        self.requests: list[Request] = []  # since the engine took them
        self.is_cancelled = False  # nobody reads any more
        self.is_daemons = threading.current_thread().daemon  # to be told nothing when Python ends
        self._cancel = cancel
        # Its `put` may be called anywhere, and a signal handler may break its `get` off.
        self._updates: queue.SimpleQueue[Update] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.num_left:
            self._cancel(self)

    @property
    def is_waiting(self) -> bool:
        """None of its requests has begun to run, and somebody wants them to."""
        return not self.is_cancelled and all(r.cache is None for r in self.requests)

    @property
    def is_dead(self) -> bool:
        """Whether nobody can read it any more."""
        return False

    def put(self, update: Update) -> None:
        self._updates.put(update)

    def get(self) -> Update:
        """Wait for the next update. Raises an error that ended all requests."""
        update = self._updates.get()
        if update.ends:
            self.num_left -= 1
            if update.output is None and update.error is not None:
                raise update.error.with_traceback(update.trace)
        return update
