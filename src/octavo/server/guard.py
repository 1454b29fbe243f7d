"""Guard: who may speak to the server, before anything of a request is looked at.

One plain ASGI app in front of all routes: the name it was called by, the page that calls, the key,
the kind of body. What it lets through goes to the intake.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.errors import OctavoError
from octavo.protocol.common import ApiError
from octavo.server.auth import ANYBODY, Tenant
from octavo.server.exchange import Exchange, Receive, Scope, Send, path_of
from octavo.server.page import FILES
from octavo.server.service import Service

_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::[0-9]*)?")  # and a port
_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_PUBLIC = frozenset({"/health", "/ready", *FILES})
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever was let in."""

    id: str  # of the request
    tenant: Tenant


Inner = Callable[[Scope, Receive, Send, Caller], Awaitable[None]]


class Guard:
    def __init__(self, service: Service, inner: Inner) -> None:
        self._service = service
        self._inner = inner
        config = service.config
        self._names = {*_LOCAL_NAMES, *(n.lower() for n in (config.host, *config.allowed_host))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the server speaks HTTP, not {scope['type']}")
        headers = dict(reversed(scope["headers"]))  # the first of a name counts
        caller = Caller(_request_id(headers), ANYBODY)
        try:
            origin = self._check_origin(scope, headers)
            if origin is not None:
                send = _with_headers(
                    send,
                    {
                        "access-control-allow-origin": origin,
                        "access-control-expose-headers": "*",
                        "vary": "origin",
                    },
                )
            self._check_host(scope, headers)
            if origin is not None and scope["method"] == "OPTIONS":
                await _answer_preflight(headers, send)
                return
            tenant = self._service.keys.tenant_of(headers)
            if tenant is None and path_of(scope) not in _PUBLIC:
                raise _no_key(headers)
            _check_kind(scope, headers)
            _check_expected(headers)
        except OctavoError as error:
            exchange = Exchange(self._service, scope, send, id=caller.id, tenant=ANYBODY, body=b"")
            try:
                await exchange.fail(error)
            finally:
                self._service.ended(exchange.outcome)
            return
        await self._inner(scope, receive, send, Caller(caller.id, tenant or ANYBODY))

    def _check_host(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """A web page can make its own name lead here (DNS rebinding), but not this server's."""
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise ApiError(400, "the head has several Host fields: expected one")
        given = headers.get(b"host", b"").decode("latin-1")
        name = _host_name(given)
        config = self._service.config
        if config.uds is not None or name in self._names:
            return
        if not config.is_local and _is_address(name):
            return
        raise ApiError(403, f"Host {given!r} is not this server's: --allowed-host NAME adds one")

    def _check_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str | None:
        """The origin of another page that may call, None for our own and for no page."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        own = f"{scope['scheme']}://{headers.get(b'host', b'').decode('latin-1')}"
        if not origin or origin == own:
            return None
        if origin in self._service.config.allow_origin:
            return origin
        raise ApiError(
            403, f"pages of {origin!r} may not call this server: --allow-origin ORIGIN lets one"
        )


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own, if it is plain."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _PLAIN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _no_key(headers: Mapping[bytes, bytes]) -> ApiError:
    given = b"authorization" in headers or b"x-api-key" in headers
    why = "the API key is wrong" if given else "an API key is needed: Authorization: Bearer KEY"
    return ApiError(401, why, code="invalid_api_key")


def _check_kind(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """A body is JSON and says so: what a web form can send to another site never is."""
    if scope["method"] not in _WITH_BODY:
        return
    if b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0":
        return  # it has none
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        found = kind.decode("latin-1") or "nothing"
        raise ApiError(415, f"content-type: expected application/json, found {found!r}")
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        found = coding.decode("latin-1")
        raise ApiError(415, f"content-encoding: {found!r} is not undone here: send plain JSON")


def _check_expected(headers: Mapping[bytes, bytes]) -> None:
    expected = headers.get(b"expect", b"").strip()
    if expected.lower() not in (b"", b"100-continue"):
        found = expected.decode("latin-1")
        raise ApiError(417, f"Expect: {found!r} is not met here, but 100-continue alone is")


def _host_name(host: str) -> str:
    """Without its port, in small letters; nothing where it is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answer_preflight(headers: Mapping[bytes, bytes], send: Send) -> None:
    """A page that may call may send any header: clients have many of their own."""
    pairs = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"")),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": pairs})
    await send({"type": "http.response.body", "body": b""})


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def wrapped(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in headers.items()]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return wrapped
