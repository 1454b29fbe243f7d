"""What marks keep in the cache, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from octavo.records import Pin
from octavo.server import pins as pins_file
from octavo.server.pins import Pins
from tests.serving.stories import in_a_loop

FIVE_MINUTES, HOUR = 300, 3600


class Cache:
    """Blocks of 4 tokens, all of them there, and room for so many tokens of pins."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.pinned: dict[Pin, tuple[int, ...]] = {}
        self.count = 0

    async def pin(
        self, token_ids: Sequence[int], cache_salt: str = "", *, owner: str = "", part: float = 1.0
    ) -> Pin:
        size = len(token_ids) // 4 * 4
        if size > self.room:
            return Pin(0, 0, "no room")
        self.count += 1
        pin = Pin(self.count, size)
        self.pinned[pin] = tuple(token_ids[:size])
        return pin

    async def unpin(self, pin: Pin) -> bool:
        return self.pinned.pop(pin, None) is not None


class Clock:
    """Its time comes when a test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], object]]] = []
        self.num_cancelled = 0

    def later(self, seconds: float, work: Callable[[], object]) -> Clock:
        self.due.append((seconds, work))
        return self

    def cancel(self) -> None:
        self.num_cancelled += 1

    async def ring(self, index: int) -> None:
        self.due[index][1]()
        for _ in range(5):  # the task that it began
            await asyncio.sleep(0)


@in_a_loop
async def test_a_pin_ends_with_its_time() -> None:
    cache, clock = Cache(), Clock()
    pin = await Pins(cache, clock.later).keep(range(9), "", FIVE_MINUTES)
    assert pin.num_tokens == 8
    assert [seconds for seconds, _ in clock.due] == [FIVE_MINUTES]
    assert list(cache.pinned) == [pin]
    await clock.ring(0)
    assert not cache.pinned


@in_a_loop
async def test_a_mark_that_comes_again_begins_its_time_anew() -> None:
    cache, clock = Cache(), Clock()
    pins = Pins(cache, clock.later)
    await pins.keep(range(8), "", FIVE_MINUTES)
    second = await pins.keep(range(8), "", FIVE_MINUTES)
    assert list(cache.pinned) == [second]
    await clock.ring(0)
    assert list(cache.pinned) == [second]
    await clock.ring(1)
    assert not cache.pinned


@in_a_loop
async def test_a_longer_prompt_takes_the_place_of_its_beginning() -> None:
    cache, clock = Cache(), Clock()
    pins = Pins(cache, clock.later)
    await pins.keep(range(8), "", FIVE_MINUTES)
    hour = await pins.keep(range(4), "", HOUR)
    longer = await pins.keep(range(20), "", FIVE_MINUTES)
    assert list(cache.pinned) == [hour, longer]


@in_a_loop
async def test_other_tokens_and_other_salts_keep_theirs() -> None:
    cache, clock = Cache(), Clock()
    pins = Pins(cache, clock.later)
    for tokens, salt in ((range(8), "a"), (range(1, 9), "a"), (range(8), "b")):
        await pins.keep(tokens, salt, FIVE_MINUTES)
    assert len(cache.pinned) == 3


@in_a_loop
async def test_what_is_not_pinned_gives_up_nothing() -> None:
    cache, clock = Cache(room=8), Clock()
    pins = Pins(cache, clock.later)
    first = await pins.keep(range(8), "", FIVE_MINUTES)
    assert (await pins.keep(range(12), "", HOUR)).why_not == "no room"
    assert list(cache.pinned) == [first]
    assert len(clock.due) == 1


@in_a_loop
async def test_a_caller_that_goes_away_leaves_no_unknown_pin() -> None:
    cache, clock = Cache(), Clock()
    asked = asyncio.create_task(Pins(cache, clock.later).keep(range(8), "", FIVE_MINUTES))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(cache.pinned) == len(clock.due) == 1
    await clock.ring(0)
    assert not cache.pinned


@in_a_loop
async def test_a_time_that_begins_anew_leaves_no_older_one() -> None:
    cache, clock = Cache(), Clock()
    pins = Pins(cache, clock.later)
    for _ in range(10):
        await pins.keep(range(8), "", FIVE_MINUTES)
    assert (len(clock.due), clock.num_cancelled, len(cache.pinned)) == (10, 9, 1)


def test_a_tenant_has_so_many_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins_file, "MOST", 2)

    @in_a_loop
    async def story() -> None:
        cache, clock = Cache(), Clock()
        pins = Pins(cache, clock.later)
        kept = [await pins.keep([first] * 4, "", HOUR, "ann") for first in range(3)]
        assert [each.num_tokens for each in kept] == [4, 4, 0]
        assert kept[2].why_not == "2 beginnings of prompts are pinned already"
        assert (await pins.keep([3] * 4, "", HOUR, "bob")).num_tokens == 4
        assert (await pins.keep([1] * 4, "", HOUR, "ann")).num_tokens == 4  # in place of its own
        assert len(cache.pinned) == 3

    story()
