"""How many wait is counted where it may be too many, and not by each that comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from octavo.errors import OverloadedError
from octavo.serving.open_requests import OpenRequests


@dataclass(eq=False)
class Queue:
    looks: list[int]
    begun: bool = False

    @property
    def is_waiting(self) -> bool:
        self.looks.append(1)
        return not self.begun


@dataclass
class Crowd:
    requests: OpenRequests
    looks: list[int] = field(default_factory=list)

    def enter(self) -> Any:
        queue: Any = Queue(self.looks)
        self.requests.enter(queue)
        return queue


def test_those_that_began_leave_room() -> None:
    crowd = Crowd(OpenRequests(2))
    first, second = crowd.enter(), crowd.enter()
    with pytest.raises(OverloadedError, match="2 requests in the queue, and at most 2 may wait"):
        crowd.enter()
    first.begun = True
    third = crowd.enter()
    with pytest.raises(OverloadedError):
        crowd.enter()
    second.begun = True
    crowd.requests.leave(third)
    crowd.enter()
    crowd.enter()
    with pytest.raises(OverloadedError):
        crowd.enter()


def test_a_crowd_is_not_counted_by_each_that_comes() -> None:
    crowd = Crowd(OpenRequests(1000))
    for _ in range(5):
        for queue in [crowd.enter() for _ in range(1000)]:
            queue.begun = True
    assert len(crowd.looks) == 1000 + 2000 + 3000 + 4000
