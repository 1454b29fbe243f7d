"""The answers of /v1/responses that are kept so that others go on from them, and those that are
still written, so that they can be cancelled. Nobody sees another tenant's.

Knows ids, messages and JSON. Bounded by answers and by bytes; the longest unused goes first.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from octavo.server.next_turn import Kept

MOST = 256  # answers of a tenant
MOST_BYTES = 64 << 20  # and their bytes, but for the newest one
_OF_ID = 4  # bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    response: bytes  # as JSON
    messages: tuple[Mapping[str, Any], ...]  # the conversation up to its end, no instructions
    kept: Kept | None  # the same in ids; None of one that was cancelled
    num_bytes: int  # of the messages: what answers share is counted in each, as the last one of
    # them holds it alone

    @property
    def size(self) -> int:
        ids = 0 if self.kept is None else _OF_ID * len(self.kept.ids)
        return self.num_bytes + len(self.response) + ids


def weigh(value: object) -> int:
    """The bytes that a value of JSON takes, however deep it is."""
    found, left = 0, [value]
    while left:
        each = left.pop()
        found += sys.getsizeof(each)
        if isinstance(each, Mapping):
            left += (*each, *each.values())
        elif isinstance(each, list | tuple):
            left += each
    return found


class StoredAnswers:
    def __init__(self) -> None:
        self._tenants: dict[str, _Answers] = {}
        self._running: dict[tuple[str, str], Running] = {}

    def add(self, tenant: str, id: str, answer: StoredAnswer) -> None:
        self._tenants.setdefault(tenant, _Answers()).add(id, answer)

    def find(self, tenant: str, id: str) -> StoredAnswer | None:
        answers = self._tenants.get(tenant)
        return None if answers is None else answers.find(id)

    def remove(self, tenant: str, id: str) -> bool:
        """Forget an answer; False if there is none."""
        answers = self._tenants.get(tenant)
        return answers is not None and answers.remove(id)

    @contextmanager
    def running(
        self, tenant: str, id: str, work: asyncio.Future[None], is_growing: Callable[[], bool]
    ) -> Iterator[Running]:
        """While an answer is written it can be found, and be cancelled while it grows."""
        running = self._running[tenant, id] = Running(work, is_growing)
        try:
            yield running
        finally:
            del self._running[tenant, id]
            running.ended.set()

    def find_running(self, tenant: str, id: str) -> Running | None:
        return self._running.get((tenant, id))


class Running:
    """An answer that is written."""

    def __init__(self, work: asyncio.Future[None], is_growing: Callable[[], bool]) -> None:
        self._work = work
        self._is_growing = is_growing
        self.is_cancelled = False
        self.response: Mapping[str, Any] | None = None  # of one that was cancelled, in the end
        self.ended = asyncio.Event()

    def cancel(self) -> bool:
        """It ends with what there is; False if it does not grow any more, or is told whole."""
        if not self.is_cancelled:
            self.is_cancelled = self._is_growing() and self._work.cancel()
        return self.is_cancelled


class _Answers:
    def __init__(self) -> None:
        self._by_id: OrderedDict[str, StoredAnswer] = OrderedDict()  # the longest unused first
        self._num_bytes = 0

    def add(self, id: str, answer: StoredAnswer) -> None:
        self._by_id[id] = answer
        self._num_bytes += answer.size
        while len(self._by_id) > MOST or (self._num_bytes > MOST_BYTES and len(self._by_id) > 1):
            self._num_bytes -= self._by_id.popitem(last=False)[1].size

    def find(self, id: str) -> StoredAnswer | None:
        if id in self._by_id:
            self._by_id.move_to_end(id)
        return self._by_id.get(id)

    def remove(self, id: str) -> bool:
        answer = self._by_id.pop(id, None)
        self._num_bytes -= 0 if answer is None else answer.size
        return answer is not None
