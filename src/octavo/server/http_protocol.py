"""uvicorn's HTTP protocol, with limits on what is beside the bodies of requests, on requests that
wait in one connection, on readers that take nothing, and on connections.

As it is, it takes any number of header bytes, before a body and after it, and of requests before
the first is answered; it never closes a half-sent head, and waits for a reader for ever; of the
requests in a connection only the last is told that the client has gone; and what is no request
behind one that is being answered breaks off that answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from octavo.server.staying_parser import StayingParser
from octavo.server.tally import Tally
from octavo.server.transport import EndingTransport
from octavo.server.write_now import SCOPE_KEY, WriteNow

_HEAD_BYTES = 64 << 10  # also of what is between two pieces of a body, and after the last
_TOO_LONG = f"the head of the request has more than {_HEAD_BYTES:,} bytes"
_HEAD_FIELDS = 100
_CODING = b"transfer-encoding"
HEAD_SECONDS = 10.0
READER_SECONDS = 60.0  # in which one takes what was written, but for a little
_QUEUED = 8  # requests in a connection behind the one that is answered
_SLICE = 16 << 10  # bytes that are parsed at once, so that a head is never much too long


class LimitedProtocol(HttpToolsProtocol):
    max_connections = 1024  # of the server; `limited_to` sets it, and who counts
    tally = Tally()

    _quiet_bytes = 0  # since a head or a piece of a body began
    _in_head = True  # of a request, or before one
    _in_message = False  # between its first byte and its last
    _timer: asyncio.TimerHandle | None = None  # of a head
    _patience: asyncio.TimerHandle | None = None  # with a reader that is behind
    _answered: RequestResponseCycle | None = None  # or being answered
    _refusal: bytes | None = None  # for when what came before it is answered: it comes last
    _upgrades: tuple[tuple[bytes, bytes], ...] = ()  # fields of a head that is read once more

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        staying: Any = StayingParser(self)
        self.parser = staying

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.tally.connections += 1
        ending: Any = EndingTransport(transport, self.loop)
        super().connection_made(ending)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many connections: try again later")
        else:
            self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.connections -= 1
        self._stop_timer()
        self._stop_patience()
        super().connection_lost(exc)
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_patience()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE):
            if self._is_over:
                return  # but for the client's end, which is seen only where one reads
            if not (self._in_head or self._in_message) and self.cycle.response_complete:
                self._begin_head()  # blank lines may come before it, and are no keep-alive
            piece = data[start : start + _SLICE]
            super().data_received(piece)
            self._check_quiet(len(piece))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # nobody reads what comes after a body
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        if self._is_over:
            return
        if self.parser.should_upgrade():
            self._upgrades = tuple(each for each in self.headers if each[0] == b"upgrade")
            if not self._upgrades:  # it asks for a tunnel
                self._refuse(400, "this server is no proxy")
            return
        self.headers += self._upgrades
        self._upgrades = ()
        if not self._is_framing_known():
            self._refuse(400, "transfer-encoding: expected chunked alone, of HTTP/1.1")
            return
        super().on_headers_complete()  # raises for an address that is none
        self._in_head = False
        self._stop_timer()
        if len(self.pipeline) > _QUEUED:
            self._refuse(429, "too many requests at once in one connection")
        elif self.pipeline:
            self.flow.resume_reading()  # else the client's end would not be seen

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        if not self._is_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # that was its head
        self._in_message = False
        self._quiet_bytes = -_SLICE  # what is whole was not too long, and this piece has its end
        if not self._is_over:
            super().on_message_complete()
            if self.cycle.response_complete:  # it was refused before it had come whole
                self._begin_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._refusal is not None:
            if self._answered is None or self._answered.response_complete:
                self._end_with(self._refusal)
            return
        if self._in_message and not self._in_head and self.cycle.response_complete:
            self._stop_timer()  # the rest of its body is read, so that the answer is, but not long
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        scope: Any = cycle.scope
        scope[SCOPE_KEY] = WriteNow(cycle)
        super()._start_asgi_task(cycle, app if cycle.scope["http_version"] != "1.0" else _bare(app))

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no request of HTTP/1.1")

    def _begin_head(self) -> None:
        self._in_head, self._quiet_bytes = True, 0
        self._stop_timer()
        if self._is_over:
            return
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _check_quiet(self, count: int) -> None:
        self._quiet_bytes += count
        if self._quiet_bytes > _HEAD_BYTES:
            self._refuse(431, _TOO_LONG)
        elif self._in_head:
            self._check_head()

    def _check_head(self) -> None:
        if not self._in_message:
            return  # there may be none yet
        if len(self.headers) > _HEAD_FIELDS:
            self._refuse(431, f"the head of the request has more than {_HEAD_FIELDS} fields")
        elif len(self.url) >= _HEAD_BYTES:  # httptools takes none so long, and calls it no HTTP
            self._refuse(431, _TOO_LONG)

    def _is_framing_known(self) -> bool:
        """Whether all who read this head take its body to end at the same place: codings before
        the last are undone by nobody here, and what speaks HTTP/1.0 knows none."""
        codings = [value.strip().lower() for name, value in self.headers if name == _CODING]
        return not codings or (codings == [b"chunked"] and self.parser.get_http_version() == "1.1")

    def _head_is_late(self) -> None:
        self._refuse(408, f"no whole request within {HEAD_SECONDS:.0f} seconds")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    @property
    def _is_over(self) -> bool:
        """Nothing more is read."""
        return self._refusal is not None or self.transport.is_closing()

    def _refuse(self, status: int, why: str) -> None:
        """Close the connection, with a reason: an answer that comes behind those to all that was
        whole before."""
        self._stop_timer()
        if self._is_over:
            return
        self.tally.refusals[status] += 1
        refusal, answered = _refusal(status, why), self._answered
        has_begun = self._in_message and not self._in_head  # what is refused: its body is to come
        if has_begun and self.cycle is answered:
            self._end_with(b"" if self.cycle.response_started else refusal)
        elif answered is None or answered.response_complete:
            self._end_with(refusal)
        else:
            if has_begun:
                self.pipeline.popleft()  # it stands last
            self._refusal = refusal
            self.flow.resume_reading()  # else the client's end would not be seen

    def _end_with(self, last: bytes) -> None:
        self.transport.write(last)
        self.transport.close()


def _refusal(status: int, why: str) -> bytes:
    told = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    body = orjson.dumps({"error": told})
    head = (
        f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def _bare(app: Any) -> Any:
    """The app for a client that knows no chunks: a body without a length ends with the
    connection."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        cycle: RequestResponseCycle = send.__self__
        has_length = True

        async def send_bare(message: Any) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name == b"content-length" for name, _ in message["headers"])
            if not has_length:
                cycle.chunked_encoding = False
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_bare)

    return answer


def limited_to(connections: int, tally: Tally) -> type[LimitedProtocol]:
    """The protocol of a server that takes so many connections."""
    limits = {"max_connections": connections, "tally": tally}
    return type("LimitedProtocol", (LimitedProtocol,), limits)
