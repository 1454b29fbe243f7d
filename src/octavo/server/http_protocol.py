"""uvicorn's HTTP protocol, with limits on the head of a request and on connections.

As it is, it takes any number of header bytes and never closes a half-sent head.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from octavo.server.tally import Tally

_HEAD_BYTES = 64 << 10
_HEAD_FIELDS = 100
_HEAD_SECONDS = 10.0
_SLICE = 16 << 10  # bytes that are parsed at once, so that a head is never much too long


class LimitedProtocol(HttpToolsProtocol):
    max_connections = 1024  # of the server; `limited_to` sets it, and who counts
    tally = Tally()

    _head_bytes = 0
    _in_head = True  # of a request, or before one
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.tally.connections += 1
        super().connection_made(transport)  # type: ignore[arg-type]  # as asyncio calls it
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many connections: try again later")
        else:
            self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.connections -= 1
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _SLICE]
            super().data_received(piece)
            if self._in_head:
                self._check_head(len(piece))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._check_fields()
        if not self.transport.is_closing():
            self._in_head = False
            self._stop_timer()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self.tally.refusals[400] += 1
        super().send_400_response(msg)

    def _begin_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._stop_timer()
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._head_is_late)

    def _check_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > _HEAD_BYTES:
            self._refuse(431, f"the head of the request has more than {_HEAD_BYTES:,} bytes")
        else:
            self._check_fields()

    def _check_fields(self) -> None:
        fields = self.headers or ()  # None before the first head
        if len(fields) > _HEAD_FIELDS:
            self._refuse(431, f"the head of the request has more than {_HEAD_FIELDS} fields")

    def _head_is_late(self) -> None:
        self._refuse(408, f"no whole request within {_HEAD_SECONDS:.0f} seconds")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, why: str) -> None:
        """Close the connection, with a reason if no answer is on its way in it."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        self.tally.refusals[status] += 1
        answering: RequestResponseCycle | None = self.cycle
        if answering is None or answering.response_complete:
            body = f'{{"error": {{"message": "{why}", "type": "invalid_request_error"}}}}'.encode()
            head = (
                f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def limited_to(connections: int, tally: Tally) -> type[LimitedProtocol]:
    """The protocol of a server that takes so many connections."""
    limits = {"max_connections": connections, "tally": tally}
    return type("LimitedProtocol", (LimitedProtocol,), limits)
