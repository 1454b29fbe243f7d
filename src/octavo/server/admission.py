"""Who may wait: a request takes a place before its prompt is read, and gives it back at its end.

Knows places and their tokens; of the engine only how fast it computes prompts. Runs in the event
loop alone, so that nothing here needs a lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol, Self

from octavo.errors import counted
from octavo.protocol.common import ApiError

PROMPTS_WAITING = 2**24  # that the engine behind it has to take: what is counted here is enough


class Waiting(Protocol):
    """An answer that is awaited."""

    @property
    def is_waiting(self) -> bool: ...  # it has not begun


class Place:
    """A request's place in the queue, until what it waits for has begun; leave it in the end."""

    def __init__(self, admission: Admission, tenant: str) -> None:
        self.tenant = tenant
        self.num_tokens = 0  # of its prompts
        self._admission = admission
        self._answers: list[Waiting] | None = None  # None: nothing was asked yet

    @property
    def is_waiting(self) -> bool:
        return self._answers is None or any(each.is_waiting for each in self._answers)

    def take_tokens(self, count: int) -> None:
        """Say how long its prompts are. Raises ApiError where too many tokens wait already."""
        self._admission.check_tokens(self, count)
        self.num_tokens = count

    def wait_for(self, answers: Iterable[Waiting]) -> None:
        """Say what it waits for from now on."""
        self._answers = list(answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.leave(self)


class Admission:
    def __init__(
        self,
        max_waiting: int,
        max_tokens: int,
        *,
        shared: bool,
        seconds: Callable[[int], float | None],
    ) -> None:
        """`shared`: there are several tenants, and one may take half at most. `seconds`: how long
        so many tokens of prompts take, as measured; None before anything was."""
        self._max_waiting = max_waiting
        self._max_tokens = max_tokens
        self._shared = shared
        self._seconds = seconds
        self._places: set[Place] = set()

    @property
    def num_open(self) -> int:
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        return sum(place.is_waiting for place in self._places)

    def enter(self, tenant: str) -> Place:
        """Take a place. Raises ApiError with status 429 where too many wait."""
        waiting = self._waiting()
        self._check(len(waiting), 1, self._max_waiting, "request")
        if self._shared:
            own = sum(place.tenant == tenant for place in waiting)
            self._check(own, 1, max(1, self._max_waiting // 2), "request")
        place = Place(self, tenant)
        self._places.add(place)
        return place

    def check_tokens(self, place: Place, count: int) -> None:
        """An idle server takes any prompt that fits the context."""
        others = [each for each in self._waiting() if each is not place]
        if others:
            self._check(_tokens(others), count, self._max_tokens, "token")
        own = [each for each in others if each.tenant == place.tenant]
        if self._shared and own:
            self._check(_tokens(own), count, max(1, self._max_tokens // 2), "token")

    def leave(self, place: Place) -> None:
        self._places.discard(place)

    def _waiting(self) -> list[Place]:
        return [place for place in self._places if place.is_waiting]

    def _check(self, waiting: int, more: int, most: int, what: str) -> None:
        if waiting + more > most:
            own = f", this has {more:,}" if more > 1 else ""
            raise ApiError(
                429,
                f"{counted(waiting, what)} waiting already{own}, and at most {most:,} may: try "
                "again later",
                code="rate_limit_exceeded",
                retry_after=self._wait(),
            )

    def _wait(self) -> int:
        """How long those that wait will take, from 1 to 60 seconds."""
        seconds = self._seconds(_tokens(self._waiting())) or 1.0
        return min(60, max(1, math.ceil(seconds)))


def _tokens(places: Iterable[Place]) -> int:
    return sum(place.num_tokens for place in places)
