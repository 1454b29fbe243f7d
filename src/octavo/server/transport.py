"""A connection's transport that ends once it is closed.

As it is, one that is closed still waits for its reader to take what was written, for ever if that
reads no more. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any

LINGER = 5.0  # seconds that a closed connection has for what it still holds


class EndingTransport:
    """Another transport, all but its `close`."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport: asyncio.Transport = transport
        self._loop = loop
        self.write = transport.write  # at hand, since each piece of a stream is written by it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(LINGER, self._transport.abort)
        self._transport.close()
