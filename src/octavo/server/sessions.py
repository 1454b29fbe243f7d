"""Sessions: conversations that are kept as token ids, a salt and a pin, so that a request says only
what is new, and nothing is tokenised twice. Nobody sees another tenant's.

The prefix index finds a session's blocks: here are only ids, and a fork copies them. Bounded by
sessions of a tenant and their bytes, and by the time since their last use. Knows pins and a clock,
no API.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from octavo.protocol.common import ApiError
from octavo.protocol.tools.asked import Tools
from octavo.records import Pin
from octavo.server.next_turn import Kept

MOST = 256  # of a tenant
MOST_BYTES = 64 << 20  # of them all: what a template leaves out takes no place in a context
_OF_ID = 4  # bytes
T = TypeVar("T")


class Pinner(Protocol):
    """What pins tokens: an engine."""

    def pin(
        self, token_ids: Sequence[int], cache_salt: str, *, owner: str, part: float
    ) -> Awaitable[Pin]: ...
    def unpin(self, pin: Pin) -> Awaitable[bool]: ...


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a turn ended."""

    num_tokens: int
    num_messages: int
    rendered: bytes  # as in Kept
    is_answered: bool
    num_bytes: int  # of the bodies that it was said in


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
    timer: asyncio.TimerHandle | None = None  # until it is forgotten

    @property
    def left(self) -> float:
        """Seconds until it is forgotten."""
        return self.ttl - (time.monotonic() - self.used)

    @property
    def kept(self) -> Kept:
        """Return a chat as its last turn left it."""
        last = self.marks[-1]
        return Kept(self.ids, last.rendered, last.is_answered)

    @property
    def size(self) -> int:
        """Its bytes; what forks share is counted in each, as it stays as long as one of them."""
        return _OF_ID * len(self.ids) + (self.marks[-1].num_bytes if self.marks else 0)

    def keep(self, kept: Kept, messages: tuple[Mapping[str, Any], ...], num_bytes: int) -> None:
        """A turn of a chat, which a body of so many bytes asked for, has ended so."""
        num_bytes += self.marks[-1].num_bytes if self.marks else 0
        self.ids, self.messages = array("i", kept.ids), messages
        mark = Mark(len(self.ids), len(messages), kept.rendered, kept.is_answered, num_bytes)
        self.marks.append(mark)

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
        self.tools, self.template_args = None, {}

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

    def __init__(self, pinner: Pinner, context: int, *, part: float = 1.0) -> None:
        """`context`: the most tokens of a prompt; a session may end with one that is behind it.
        `part` of the memory for pins is what one tenant may take."""
        self._part = part
        self._pinner = pinner
        self._context = context
        self._by_id: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def check_room(self, tenant: str, count: int = 1, num_bytes: int = 0) -> None:
        """Raises ApiError with status 429 where the tenant would have so many, or so much, more
        than may be."""
        held = [each.size for each in self._by_id.values() if each.tenant == tenant]
        if len(held) + count > MOST:
            why = f"{len(held)} sessions are open, and at most {MOST} may be: delete some"
            raise ApiError(429, why, code="too_many_sessions")
        if sum(held) + num_bytes > MOST_BYTES:
            why = (
                f"the open sessions hold {sum(held):,} bytes, and this adds {num_bytes:,}: "
                f"at most {MOST_BYTES:,} may be: delete some"
            )
            raise ApiError(429, why, code="too_many_sessions")

    def add(self, session: Session) -> None:
        """Raises ApiError with status 429."""
        self.check_room(session.tenant, 1, session.size)
        self._by_id[session.id] = session
        session.used = time.monotonic()
        self._expire_later(session)

    @contextmanager
    def adding(self, sessions: Sequence[Session]) -> Iterator[None]:
        """Add these; they are forgotten again where their caller could not be told of them. Raises
        ApiError with status 429."""
        try:
            for each in sessions:
                self.add(each)
            yield
        except BaseException:
            for each in sessions:
                self.remove(each)
            raise

    def find(self, tenant: str, id: str) -> Session:
        """Raises ApiError with status 404, for another tenant's too."""
        session = self._by_id.get(id)
        if session is None or session.tenant != tenant:
            raise ApiError(404, f"there is no session {id!r} of the caller's", param="session")
        return session

    @contextmanager
    def use(self, tenant: str, id: str, num_bytes: int = 0) -> Iterator[Session]:
        """Nobody else uses it meanwhile; it may grow by a body of so many bytes. Raises ApiError
        with status 404, 409 or 429."""
        session = self.find(tenant, id)
        if session.is_busy:
            why = f"the session {id!r} is in use by another request: wait for its end"
            raise ApiError(409, why, code="session_in_use")
        if num_bytes:
            self.check_room(tenant, 0, num_bytes)
        session.is_busy = True
        try:
            yield session
        finally:
            session.is_busy, session.used = False, time.monotonic()

    def remove(self, session: Session) -> None:
        """Forget it; its pin is given up."""
        if self._by_id.pop(session.id, None) is None:
            return
        if session.timer is not None:
            session.timer.cancel()  # or the loop holds the session until then
        self._give_up(session)

    async def pin(self, session: Session) -> None:
        """Pin what the cache has of a session that asked for it, in place of what was pinned: to
        its end, also where nobody waits for it any more, so that no pin is lost."""
        if session.wants_pin:
            await asyncio.shield(self._begin(self._pinned(session)))

    def cleared(self) -> None:
        """The cache was cleared, and all pins with it."""
        for each in self._by_id.values():
            each.pin = None

    async def _pinned(self, session: Session) -> None:
        ids = list(session.ids[: self._context])
        found = await self._pinner.pin(ids, session.salt, owner=session.tenant, part=self._part)
        self._give_up(session)
        session.pin = found if found.num_tokens else None
        if session.id not in self._by_id:  # forgotten meanwhile
            self._give_up(session)

    def _give_up(self, session: Session) -> None:
        """Give up its pin, if it has one."""
        pin, session.pin = session.pin, None
        if pin is not None:
            self._begin(self._unpinned(pin))

    async def _unpinned(self, pin: Pin) -> bool:
        return await self._pinner.unpin(pin)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task

    def _expire_later(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        session.timer = loop.call_later(max(session.left, 0.0), self.expire, session)

    def expire(self, session: Session) -> None:
        """Remove a session whose time is over; of one that is in use it begins anew."""
        if session.id not in self._by_id:
            return
        if session.is_busy:
            session.used = time.monotonic()
        if session.left > 0:
            self._expire_later(session)
        else:
            self.remove(session)
