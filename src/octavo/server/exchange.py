"""Exchange: one HTTP request, and what is written back: a whole answer, or a stream of events.

Knows ASGI messages, and of APIs only whose words the caller reads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.datastructures import Headers, QueryParams

from octavo.errors import OctavoError
from octavo.protocol.streams import Event
from octavo.server.auth import Tenant
from octavo.server.config import is_loopback
from octavo.server.errors import api_of, as_octavo_error, body_of, headers_of, status_for
from octavo.server.outcome import Outcome
from octavo.server.service import Service
from octavo.server.sse import PING_EVENT, EventStream
from octavo.server.write_now import SCOPE_KEY, WriteNow

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


_PROXIED = ("forwarded", "via", "x-forwarded-", "x-real-ip", "x-client-ip", "cf-connecting-ip")


def path_of(scope: Scope) -> str:
    """The path as the table of routes has it: below --root-path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Exchange:
    def __init__(
        self, service: Service, scope: Scope, send: Send, *, id: str, tenant: Tenant, body: bytes
    ) -> None:
        self.service = service
        self.id = id
        self.tenant = tenant
        self.body = body
        self.held_bytes = len(body)  # of it, whole or in part
        self.method: str = scope["method"]
        self.path = path_of(scope)
        self.path_params: Mapping[str, Any] = scope.get("path_params", {})
        self.headers = Headers(scope=scope)
        self.api = api_of(self.path, self.headers)
        self.query = QueryParams(scope["query_string"])
        parent = self.headers.get("traceparent")
        self.outcome = Outcome(id, tenant.name, self.method, self.path, parent)
        self.noted = self.outcome.noted  # what was given and changes no answer
        self.told: dict[str, str] = {}  # headers of the route's own, on whatever is sent
        self._client: tuple[str, int] | None = scope.get("client")
        self.failed: Callable[[OctavoError], Event] | None = None  # what tells it in a stream
        self._send = send
        # Out of the scope: it holds the connection's cycle, and that the scope.
        self._write_now: WriteNow | None = scope.pop(SCOPE_KEY, None)
        self._stream: EventStream | None = None

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine, as far as can be told: what a proxy passes on may
        be anybody's."""
        if any(name.startswith(_PROXIED) for name in self.headers):
            return False
        if self._client is None:  # a Unix socket has no address; nor has one who left already
            return self.service.config.uds is not None
        return is_loopback(self._client[0])

    async def respond(
        self, content: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with JSON."""
        await self.respond_bytes(orjson.dumps(content), "application/json", status, headers)

    async def respond_bytes(
        self,
        body: bytes,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        length = {"content-type": media_type, "content-length": str(len(body))}
        await self._begin(status, {**length, **(headers or {})})
        await self._send({"type": "http.response.body", "body": body})

    async def open_stream(self) -> EventStream:
        """Send the head of a stream of events."""
        self.outcome.is_stream = True
        await self._begin(
            200,
            {
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                "x-accel-buffering": "no",
            },
        )
        self._stream = EventStream(self._send, self._write_now)
        if self.api == "anthropic":
            self._stream.ping, self._stream.error_name = PING_EVENT, "error"
        return self._stream

    @property
    def stream(self) -> EventStream | None:
        """The stream that was opened."""
        return self._stream

    async def fail(self, error: BaseException) -> None:
        """Tell an error, wherever the answer is: a stream that has begun ends with its event."""
        told = self.outcome.error = as_octavo_error(error, self.id)
        if self._stream is not None:
            if self.failed is not None:
                event = self.failed(told)
            else:
                event = Event(body_of(told, self.api, self.id), self._stream.error_name)
            await self._stream.fail(event)
        elif self.outcome.status is None:
            body = body_of(told, self.api, self.id)
            await self.respond(body, status_for(told, self.api), headers_of(told))

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.outcome.status = status
        own = {"x-request-id": self.id, **self.told}
        if self.api == "anthropic":
            own["request-id"] = self.id
        if self.noted:
            own["x-octavo-ignored"] = ", ".join(dict.fromkeys(self.noted))
        pairs = [(k.encode(), v.encode("latin-1")) for k, v in {**headers, **own}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
