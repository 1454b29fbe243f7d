"""Intake: a body within its limits, then the route as a task that ends when its client has gone,
or when the server closes.

What a route raises becomes its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from octavo.protocol.common import ApiError
from octavo.server.exchange import Exchange, Receive, Scope, Send
from octavo.server.guard import Caller
from octavo.server.service import Service

Handler = Callable[[Exchange], Awaitable[None]]
Finder = Callable[[Scope], Handler]  # raises ApiError where there is no route

BODY_SECONDS = 30.0
BODIES = 16  # of the largest size, that are held at once


class ClientGoneError(Exception):
    """The connection ended before its answer did."""


class Intake:
    def __init__(self, service: Service, find: Finder) -> None:
        self._service = service
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        service = self._service
        exchange = Exchange(service, scope, send, id=caller.id, tenant=caller.tenant, body=b"")
        try:
            handler = self._find(scope)
            exchange.outcome.route = scope["route"]
            exchange.path_params = scope.get("path_params", {})
            exchange.body = await self._body(exchange, receive)
            await self._run(handler(exchange), exchange, receive)
        except ClientGoneError:
            exchange.outcome.is_gone = True
        except Exception as error:
            await exchange.fail(error)
        finally:
            service.body_bytes -= exchange.held_bytes
            service.bytes_by_tenant[caller.tenant.name] -= exchange.held_bytes
            service.ended(exchange.outcome)

    async def _body(self, exchange: Exchange, receive: Receive) -> bytes:
        """The whole body. Raises what `_read_body` does, and ApiError where the server closes."""
        body = asyncio.ensure_future(self._read_body(exchange, receive))
        closing = asyncio.ensure_future(self._service.closing.wait())
        try:
            await asyncio.wait({body, closing}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                return body.result()
            await _cancelled(body)
            raise _closing()
        finally:
            for task in (body, closing):
                task.cancel()

    async def _read_body(self, exchange: Exchange, receive: Receive) -> bytes:
        """Read the whole body. Raises ApiError where it is too long, slow, or there are too
        many."""
        most = self._service.config.max_body
        length = exchange.headers.get("content-length", "0")
        if length.isdecimal() and int(length.lstrip("0") or 0) > most:
            raise _too_large(most)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    self._hold(exchange, message.get("body", b""), body)
                    if len(body) > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise ApiError(
                408, f"the body did not come whole within {BODY_SECONDS:.0f} seconds"
            ) from None
        return bytes(body)

    def _hold(self, exchange: Exchange, piece: bytes, body: bytearray) -> None:
        """Add a piece to a body. Raises ApiError where all that are held are too much, and where
        a tenant of several holds more than half of that."""
        service, tenant = self._service, exchange.tenant.name
        body += piece
        exchange.held_bytes += len(piece)
        service.body_bytes += len(piece)
        service.bytes_by_tenant[tenant] += len(piece)
        most = BODIES * service.config.max_body
        is_greedy = service.bytes_by_tenant[tenant] > most // 2 and service.keys.num_tenants > 1
        if service.body_bytes > most or is_greedy:
            raise ApiError(429, "too many large bodies at once: try again later", retry_after=1)

    async def _run(self, work: Awaitable[None], exchange: Exchange, receive: Receive) -> None:
        """Run a route to its end, or until nobody is left to hear it, or the server closes."""
        route = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_gone(receive))
        closing = asyncio.ensure_future(self._service.closing.wait())
        try:
            await asyncio.wait({route, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            if route.done():
                route.result()
                return
            await _cancelled(route)
            if gone.done():
                raise ClientGoneError
            await exchange.fail(_closing())
        finally:
            for task in (route, gone, closing):
                task.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _closing() -> ApiError:
    return ApiError(503, "the server is shutting down", retry_after=1)


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body has more than {most:,} bytes: --max-body sets the limit")
