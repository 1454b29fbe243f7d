"""/v1/cache: the KV cache as it is, what it did for the caller's requests, and its clearing.

What is whose is the caller's own: nobody sees the prompts of another tenant.
"""

from __future__ import annotations

from octavo.protocol.common import ApiError
from octavo.records import SharedPrefix
from octavo.server.exchange import Exchange
from octavo.server.generation import read_nothing

_SHOWN = 500  # characters of a prefix


async def show(exchange: Exchange) -> None:
    """Show the cache; with `?cache_salt=` what the caller has under a salt of its own, with
    `?prompt_cache_key=` also what it did for the caller's last requests of that label."""
    salt = exchange.tenant.salt(exchange.query.get("cache_salt", ""))
    loaded = exchange.service.loaded
    view = await loaded.engine.view(salt)
    key = exchange.query.get("prompt_cache_key")
    asked = {}
    if key is not None:
        asked["requests"] = exchange.service.history.sums(exchange.tenant.name, key)
    await exchange.respond(
        {
            "object": "cache",
            "model": loaded.names[0],
            "counts": view.counts,
            "waste": view.waste,
            "pins": [{"id": pin.id, "num_tokens": pin.num_tokens} for pin in view.pins],
            "prefixes": [_prefix(each) for each in view.prefixes],
            **asked,
        }
    )


async def show_request(exchange: Exchange) -> None:
    id = exchange.path_params["id"]
    found = exchange.service.history.find(exchange.tenant.name, id)
    if found is None:
        raise ApiError(404, "there is no such request among the caller's last ones")
    await exchange.respond_bytes(found, "application/json")


async def clear(exchange: Exchange) -> None:
    """Forget the tokens of all tenants, and their pins, but for what running requests hold."""
    _check_may_clear(exchange)
    read_nothing(exchange)
    loaded = exchange.service.loaded
    count = await loaded.engine.clear()
    loaded.sessions.cleared()
    await exchange.respond({"object": "cache.cleared", "blocks": count})


def _check_may_clear(exchange: Exchange) -> None:
    """Raises ApiError with status 403."""
    if exchange.service.keys.are_required:
        if not exchange.tenant.is_admin:
            raise ApiError(403, "only a key with `admin` may clear the cache, which is everybody's")
    elif not exchange.is_local:
        raise ApiError(403, "without keys the cache is cleared from the server's machine alone")


def _prefix(prefix: SharedPrefix) -> dict[str, object]:
    text = prefix.text or ""
    return {
        "num_tokens": len(prefix.token_ids),
        "num_hits": prefix.num_hits,
        "text": text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…",
    }
