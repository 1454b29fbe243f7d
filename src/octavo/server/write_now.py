"""WriteNow: a piece of an answer, written to its connection at once.

What comes by ASGI's `send` is a message and a coroutine for each piece; this is a call. Knows
uvicorn's cycle of one request, no events.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

SCOPE_KEY = "octavo.write_now"  # where a request's scope has it, if its connection has one


class WriteNow:
    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._is_closing = cycle.transport.is_closing
        self._write = cycle.transport.write

    def __call__(self, body: bytes) -> bool:
        """Write more of the body. False where that is for `send`: a reader who has to be waited
        for, and a body that is not in chunks. Who has gone is written nothing."""
        cycle = self._cycle
        if cycle.disconnected or self._is_closing():
            return True
        if cycle.flow.write_paused or not cycle.chunked_encoding or cycle.response_complete:
            return False
        self._write(b"%x\r\n%b\r\n" % (len(body), body))
        return True
