"""/health and /ready: whether the process lives, and whether it takes requests."""

from __future__ import annotations

from octavo.server.exchange import Exchange


async def health(exchange: Exchange) -> None:
    await exchange.respond({"status": "ok"})


async def ready(exchange: Exchange) -> None:
    state = exchange.service.state
    await exchange.respond({"status": state}, 200 if state == "ready" else 503)
