"""Sessions: conversations that are kept as token ids, a salt and a pin, so that a request says only
what is new, and nothing is tokenised twice. Nobody sees another tenant's.

The prefix index finds a session's blocks: here are only ids, and a fork copies them. Bounded by
sessions of a tenant, and by the time since their last use. Knows pins and a clock, no API.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from octavo.protocol.common import ApiError
from octavo.protocol.tools.asked import Tools
from octavo.records import Pin
from octavo.server.next_turn import Kept

_MOST = 256  # of a tenant
Unpin = Callable[[Pin], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a turn ended."""

    num_tokens: int
    num_messages: int
    rendered: bytes  # as in Kept
    is_answered: bool


@dataclass(slots=True, eq=False)
class Session:
    tenant: str
    salt: str  # the tenant's and the client's own
    ttl: float  # seconds after its last use
    wants_pin: bool
    ids: array[int]
    messages: tuple[Mapping[str, Any], ...] | None  # None: no chat, but a plain prompt
    tools: Tools | None = None
    template_args: Mapping[str, object] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)  # of a chat, the newest last
    id: str = field(default_factory=lambda: f"sess_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970
    used: float = field(default_factory=time.monotonic)
    pin: Pin | None = None
    is_busy: bool = False

    @property
    def left(self) -> float:
        """Seconds until it is forgotten."""
        return self.ttl - (time.monotonic() - self.used)

    @property
    def kept(self) -> Kept:
        """Of a chat."""
        last = self.marks[-1]
        return Kept(self.ids, last.rendered, last.is_answered)

    def keep(self, kept: Kept, messages: tuple[Mapping[str, Any], ...]) -> None:
        """A turn of a chat has ended so."""
        self.ids, self.messages = array("i", kept.ids), messages
        self.marks.append(Mark(len(self.ids), len(messages), kept.rendered, kept.is_answered))

    def rewind_messages(self, count: int) -> None:
        """Raises ApiError where no turn ended with so many messages."""
        ends = {mark.num_messages: at for at, mark in enumerate(self.marks)}
        if count not in ends:
            known = ", ".join(map(str, ends)) or "none: it is no chat"
            why = f"messages={count}: expected what a turn of the session ended with ({known})"
            raise ApiError(400, why, param="messages")
        self._rewind(ends[count])

    def rewind_tokens(self, count: int) -> None:
        """It is a plain prompt from then on, unless a turn ended there. Raises ApiError."""
        if count > len(self.ids):
            why = f"tokens={count}: the session has {len(self.ids)}"
            raise ApiError(400, why, param="tokens")
        ends = {mark.num_tokens: at for at, mark in enumerate(self.marks)}
        if count in ends:
            self._rewind(ends[count])
        else:
            self.become_plain(self.ids[:count])

    def become_plain(self, ids: Sequence[int]) -> None:
        """It is these tokens, and no chat."""
        self.ids, self.messages, self.marks = array("i", ids), None, []

    def fork(self) -> Session:
        """A session like this, which has no pin yet."""
        return Session(
            self.tenant, self.salt, self.ttl, self.wants_pin, self.ids[:], self.messages,
            self.tools, self.template_args, [*self.marks],
        )  # fmt: skip

    def _rewind(self, at: int) -> None:
        mark = self.marks[at]
        assert self.messages is not None, "a chat has marks"
        self.ids, self.messages = self.ids[: mark.num_tokens], self.messages[: mark.num_messages]
        del self.marks[at + 1 :]


class Sessions:
    """Used in the event loop alone."""

    def __init__(self, unpin: Unpin) -> None:
        self._unpin = unpin
        self._by_id: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[bool]] = set()

    def check_room(self, tenant: str, count: int = 1) -> None:
        """Raises ApiError with status 429 where the tenant would have too many."""
        held = sum(each.tenant == tenant for each in self._by_id.values())
        if held + count > _MOST:
            why = f"{held} sessions are open, and at most {_MOST} may be: delete some"
            raise ApiError(429, why, code="too_many_sessions")

    def add(self, session: Session) -> None:
        """Raises ApiError with status 429."""
        self.check_room(session.tenant)
        self._by_id[session.id] = session
        self._expire_later(session)

    def find(self, tenant: str, id: str) -> Session:
        """Raises ApiError with status 404, for another tenant's too."""
        session = self._by_id.get(id)
        if session is None or session.tenant != tenant:
            raise ApiError(404, f"there is no session {id!r} of the caller's", param="session")
        return session

    @contextmanager
    def use(self, tenant: str, id: str) -> Iterator[Session]:
        """Nobody else uses it meanwhile. Raises ApiError with status 404 or 409."""
        session = self.find(tenant, id)
        if session.is_busy:
            why = f"the session {id!r} is in use by another request: wait for its end"
            raise ApiError(409, why, code="session_in_use")
        session.is_busy = True
        try:
            yield session
        finally:
            session.is_busy, session.used = False, time.monotonic()

    def remove(self, session: Session) -> None:
        """Forget it; its pin is given up."""
        if self._by_id.pop(session.id, None) is not None:
            self.give_up(session)

    def give_up(self, session: Session) -> None:
        """Give up its pin, if it has one."""
        pin, session.pin = session.pin, None
        if pin is not None:
            task = asyncio.ensure_future(self._unpinned(pin))
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _unpinned(self, pin: Pin) -> bool:
        return await self._unpin(pin)

    def _expire_later(self, session: Session) -> None:
        asyncio.get_running_loop().call_later(max(session.left, 0.0), self._expire, session)

    def _expire(self, session: Session) -> None:
        if session.id not in self._by_id:
            return
        if session.is_busy:
            session.used = time.monotonic()
        if session.left > 0:
            self._expire_later(session)
        else:
            self.remove(session)
