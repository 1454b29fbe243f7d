"""/v1/cache: what the cache did for the caller's requests. Nobody sees another tenant's."""

from __future__ import annotations

from octavo.protocol.common import ApiError
from octavo.server.exchange import Exchange


async def show_request(exchange: Exchange) -> None:
    id = exchange.path_params["id"]
    found = exchange.service.history.find(exchange.tenant.name, id)
    if found is None:
        raise ApiError(404, "there is no such request among the caller's last ones")
    await exchange.respond_bytes(found, "application/json")
