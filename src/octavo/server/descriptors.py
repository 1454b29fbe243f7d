"""File descriptors: room for as many connections as the server takes, and what it says where there
is none left.

asyncio tries again each second, and tells the same some thousand times: here once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
from collections.abc import Callable
from typing import Any

_BESIDE = 64  # the model, the log, libraries
_GONE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SILENCE = 60.0  # seconds


def make_room(connections: int) -> None:
    """Raise what the process may open as far as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _BESIDE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Shortage:
    """The event loop's handler of errors that nobody else takes."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._silent_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _GONE and "socket" in context):
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + _SILENCE
            why = (error.strerror or "").lower()
            self._note(f"new connections wait: {why}; ulimit -n and --max-connections bound them")
