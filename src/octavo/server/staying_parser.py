"""httptools' parser of requests, for a server that never leaves HTTP/1.1.

As it is, it takes a request that asks for another protocol to have no body, and reads the body as
the next request: whoever sends one through a proxy speaks for the proxy. Here such a request is
read once more without its `upgrade`, which the protocol still sees among the headers.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import httptools


class Reader(Protocol):
    """Who is told what was read, by httptools' callbacks too."""

    url: bytes
    headers: list[tuple[bytes, bytes]]


class StayingParser:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._parser = _new(reader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        """Raises HttpParserError."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            (end_of_head,) = found.args
            head = self._head()
            self._parser = _new(self._reader)
            self._parser.feed_data(head)
            self.feed_data(data[end_of_head:])

    def _head(self) -> bytes:
        """Return the head of the request that was read, without what asks for another protocol."""
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        fields = [
            name + b": " + value for name, value in self._reader.headers if name != b"upgrade"
        ]
        first = method + b" " + self._reader.url + b" HTTP/" + version
        return b"\r\n".join([first, *fields, b"", b""])


def _new(reader: Reader) -> Any:
    parser = httptools.HttpRequestParser(reader)
    with contextlib.suppress(AttributeError):  # of older ones, which are lenient as they are
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
