"""A load offered to a server: every request at its time, so many at once, and what became of each.

Knows times and places; knows no HTTP and no text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from octavo.bench.server_load.stream import AskError, Received, Reply, read_reply


class Asker(Protocol):
    async def ask(self, body: bytes) -> Received: ...


@dataclass(frozen=True, slots=True)
class Load:
    outcomes: tuple[Reply | AskError, ...]  # in the order of the requests
    seconds: float  # from the first request's begin to the last one's end


async def offer(
    client: Asker,
    bodies: Sequence[bytes],
    arrivals: Sequence[float],
    concurrency: int | None,
    ended: Callable[[], None],
) -> Load:
    """Send each body when it arrives and has a place, in the order of these ascending times;
    `ended` is called as each request ends. Waiting for a place is no part of a request's own
    times."""
    places = asyncio.Semaphore(concurrency or len(bodies))
    began = perf_counter()

    async def one(body: bytes) -> Received | AskError:
        async with places:
            try:
                outcome: Received | AskError = await client.ask(body)
            except AskError as error:
                outcome = error
        ended()
        return outcome

    tasks = []
    async with asyncio.TaskGroup() as group:
        for body, at in zip(bodies, arrivals, strict=True):
            # One after the other: a late one with a timer of its own would overtake those before.
            if (wait := began + at - perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(group.create_task(one(body)))
    seconds = perf_counter() - began
    return Load(tuple(_outcome(task.result()) for task in tasks), seconds)


def _outcome(found: Received | AskError) -> Reply | AskError:
    if isinstance(found, AskError):
        return found
    try:
        return read_reply(found)
    except AskError as error:
        return error
