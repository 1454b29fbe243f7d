"""A stream of events to a reader that is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from octavo.protocol.streams import Event
from octavo.server.sse import EventStream


def test_a_piece_that_waits_comes_before_what_ends_the_stream() -> None:
    """A writer counts its events when it makes them: none may be lost when its work is ended."""

    async def story() -> None:
        sent: list[bytes] = []
        is_ready = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            await is_ready.wait()
            sent.append(message["body"])

        stream = EventStream(send)
        for number in (0, 1):
            piece = asyncio.create_task(stream.write([Event(number)]))
            await asyncio.sleep(0)
            piece.cancel()
            await asyncio.wait({piece})
        is_ready.set()
        await stream.write([Event(2)])
        await stream.fail(Event(3))
        assert b"".join(sent) == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"

    asyncio.run(story())
