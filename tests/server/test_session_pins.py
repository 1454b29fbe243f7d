"""The pins and the time of sessions, with an engine and a clock of the test's own."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence

import pytest

from octavo.records import Pin
from octavo.server import sessions
from octavo.server.sessions import Session, Sessions

TENANT = "ann"


class Pinner:
    """Pins when it is let to."""

    def __init__(self) -> None:
        self.is_free = asyncio.Event()
        self.held: list[Pin] = []

    async def pin(
        self, token_ids: Sequence[int], cache_salt: str, *, owner: str, part: float
    ) -> Pin:
        await self.is_free.wait()
        self.held.append(Pin(len(self.held) + 1, len(token_ids)))
        return self.held[-1]

    async def unpin(self, pin: Pin) -> bool:
        self.held.remove(pin)
        return True


def session(ttl: float = 100.0) -> Session:
    return Session(TENANT, "", ttl, wants_pin=True, ids=array("i", [1, 2]), messages=None)


def run(story: Callable[[Pinner, Sessions], Awaitable[None]]) -> None:
    async def told() -> None:
        pinner = Pinner()
        await story(pinner, Sessions(pinner, 100))

    asyncio.run(told())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("ends", ["removed", "left"])
def test_no_pin_is_lost_where_nobody_waits_for_it(ends: str) -> None:
    async def story(pinner: Pinner, held: Sessions) -> None:
        one = session()
        held.add(one)
        waiting = asyncio.create_task(held.pin(one))
        await settle()
        if ends == "removed":
            held.remove(one)
        else:
            waiting.cancel()
        pinner.is_free.set()
        await settle()
        assert pinner.held == ([] if one.pin is None else [one.pin])
        held.remove(one)
        await settle()
        assert pinner.held == []

    run(story)


def test_who_was_not_told_of_a_session_has_none() -> None:
    async def story(pinner: Pinner, held: Sessions) -> None:
        one = session()

        async def create() -> None:
            with held.adding([one]):
                await held.pin(one)

        creating = asyncio.create_task(create())
        await settle()
        creating.cancel()
        pinner.is_free.set()
        await settle()
        assert pinner.held == []
        held.check_room(TENANT, sessions.MOST)

    run(story)


def test_the_time_begins_anew_with_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(pinner: Pinner, held: Sessions) -> None:
        now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        pinner.is_free.set()
        one = session(ttl=10)
        now += 50  # its prompt was computed
        held.add(one)
        await held.pin(one)
        assert one.left == 10
        now += 9
        with held.use(TENANT, one.id):
            now += 30
            held.expire(one)
            assert held.find(TENANT, one.id) is one
        assert one.left == 10
        now += 9.5
        held.expire(one)
        assert held.find(TENANT, one.id).left == 0.5
        now += 0.5
        held.expire(one)
        await settle()
        assert pinner.held == []
        held.check_room(TENANT, sessions.MOST)

    run(story)
