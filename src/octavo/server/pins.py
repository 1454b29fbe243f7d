"""Pins: beginnings of prompts that callers marked, kept in the cache for as long as the marks say.

A mark that comes again begins its time anew. Knows the engine's pins and a clock, and no API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from octavo.records import Pin

T = TypeVar("T")
MOST = 256  # pins of a tenant: each has its price, also where their blocks are the same


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], object]], Timer]  # after so many seconds


class Cache(Protocol):
    """What pins need of the engine."""

    async def pin(
        self, token_ids: Sequence[int], cache_salt: str = "", *, owner: str = "", part: float = 1.0
    ) -> Pin: ...
    async def unpin(self, pin: Pin) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Kept:
    tenant: str
    salt: str
    token_ids: Sequence[int]
    until: float  # seconds of the loop's clock
    timer: Timer


class Pins:
    """Used in the event loop alone."""

    def __init__(self, cache: Cache, later: Later | None = None, *, part: float = 1.0) -> None:
        """`later` is the event loop's, unless it is given; `part` of the memory for pins is what
        one tenant may take."""
        self._cache = cache
        self._part = part
        self._later = later
        self._kept: dict[Pin, _Kept] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def keep(
        self, token_ids: Sequence[int], salt: str, seconds: float, tenant: str = ""
    ) -> Pin:
        """Pin what the cache has of these tokens. Pins that hold no more, and no longer, are given
        up: their blocks are held by the new one."""
        # A caller that goes away in between leaves no pin that nobody knows.
        return await asyncio.shield(self._begin(self._keep(token_ids, salt, seconds, tenant)))

    async def _keep(self, token_ids: Sequence[int], salt: str, seconds: float, tenant: str) -> Pin:
        pin = await self._cache.pin(token_ids, salt, owner=tenant, part=self._part)
        if not pin.num_tokens:
            return pin
        loop = asyncio.get_running_loop()
        later = self._later or loop.call_later
        timer = later(seconds, lambda: self._begin(self._give_up(pin)))
        new = _Kept(tenant, salt, token_ids[: pin.num_tokens], loop.time() + seconds, timer)
        covered = [each for each, kept in self._kept.items() if _covers(new, kept)]
        self._kept[pin] = new
        for each in covered:
            await self._give_up(each)
        if sum(kept.tenant == tenant for kept in self._kept.values()) > MOST:
            await self._give_up(pin)
            return Pin(0, 0, f"{MOST} beginnings of prompts are pinned already")
        return pin

    async def _give_up(self, pin: Pin) -> None:
        kept = self._kept.pop(pin, None)
        if kept is not None:
            kept.timer.cancel()
            await self._cache.unpin(pin)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task


def _covers(new: _Kept, old: _Kept) -> bool:
    same = new.salt == old.salt and new.until >= old.until
    return same and old.token_ids == new.token_ids[: len(old.token_ids)]
