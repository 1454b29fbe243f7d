"""A connection of TLS before its first request: its handshake, which counts and has its time.

asyncio tells a protocol of a connection only when the handshake is done, so that those which never
are would be bounded by nothing, and last a minute. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from octavo.server.tally import Tally
from octavo.server.transport import LINGER

SECONDS = 10.0  # that one may take
Make = Callable[..., asyncio.Protocol]  # as uvicorn makes the protocol of a connection


class Handshake(asyncio.Protocol):
    """Whom the bytes of a connection go to until `inner` has it."""

    def __init__(
        self, inner: asyncio.Protocol, context: ssl.SSLContext, connections: int, tally: Tally
    ) -> None:
        self._inner = inner
        self._context = context
        self._max_connections = connections
        self._tally = tally
        self._early: list[bytes] = []  # what came along with the handshake's end
        self._is_lost = False
        self._work: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self._tally.connections >= self._max_connections:
            self._tally.refusals[503] += 1
            transport.abort()  # to tell it why would take a handshake
            return
        self._tally.connections += 1
        transport.pause_reading()  # what comes is for the handshake
        self._work = asyncio.get_running_loop().create_task(self._shake_hands(transport))

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, self, self._context, server_side=True,
                ssl_handshake_timeout=SECONDS, ssl_shutdown_timeout=LINGER,
            )  # fmt: skip
        except OSError:  # no TLS, or none that both speak; it came too late; the client has gone
            transport.abort()
            return
        finally:
            self._tally.connections -= 1  # `inner` counts it from now on
        if secured is None or self._is_lost:
            return
        secured.set_protocol(self._inner)
        self._inner.connection_made(secured)
        if self._early:
            self._inner.data_received(b"".join(self._early))


def behind_tls(make: Make, context: ssl.SSLContext, connections: int, tally: Tally) -> Any:
    """What makes the protocol of a connection, with a handshake before it; at most so many are open
    at once, handshakes among them."""

    def made(*given: Any, **named: Any) -> Handshake:
        return Handshake(make(*given, **named), context, connections, tally)

    return made
