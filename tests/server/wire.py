"""Requests as bytes, and the statuses of what comes back."""

from __future__ import annotations

from tests.server.live import Live

HEAD = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
CLOSE = b"connection: close\r\n\r\n"


def held_connections(live: Live) -> int:
    return live.service.tally.connections


def heads(raw: bytes) -> list[int]:
    """The statuses of all that was answered."""
    return [int(each[:3]) for each in raw.split(b"HTTP/1.1 ")[1:]]
