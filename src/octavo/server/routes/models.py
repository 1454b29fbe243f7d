"""/v1/models: the one model there is, under each of its names."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from octavo.errors import ModelNotFoundError
from octavo.protocol.bodies import BodyError
from octavo.server.exchange import Exchange
from octavo.server.service import Loaded


async def list_all(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    found = [_model(loaded, name, exchange) for name in _names(loaded)]
    if exchange.api == "anthropic":
        await exchange.respond(_page(found, exchange))
        return
    await exchange.respond({"object": "list", "data": found, "models": found})


async def show(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    name = exchange.path_params["id"]
    if name not in _names(loaded):
        raise ModelNotFoundError(f"there is no model {name!r}: /v1/models lists what there is")
    await exchange.respond(_model(loaded, name, exchange))


def _names(loaded: Loaded) -> list[str]:
    return [name for name in loaded.names if name != "*"]


def _page(models: list[dict[str, object]], exchange: Exchange) -> dict[str, object]:
    """The part of the list that the query asks for. Raises BodyError."""
    query = exchange.query
    limit = query.get("limit", "20")
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= 1000:
        raise BodyError(f"limit={limit!r}: expected a whole number from 1 to 1000", "limit")
    names = [model["id"] for model in models]
    begin, end = 0, len(models)
    if (after := query.get("after_id")) is not None:
        begin = names.index(after) + 1 if after in names else end
    if (before := query.get("before_id")) is not None:
        end = names.index(before) if before in names else begin
        begin = max(begin, end - int(limit))
    page = models[begin:end][: int(limit)]
    return {
        "data": page,
        "has_more": len(page) < len(models[begin:]) if before is None else begin > 0,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _model(loaded: Loaded, name: str, exchange: Exchange) -> dict[str, object]:
    if exchange.api == "anthropic":
        context = loaded.engine.info.context
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": datetime.fromtimestamp(exchange.service.started, UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": context,
            "max_tokens": context,
        }
    return {
        "id": name,
        "object": "model",
        "created": exchange.service.started,
        "owned_by": "octavo",
        "root": loaded.names[0],
        "max_model_len": loaded.engine.info.context,
        "sliding_context": loaded.engine.info.sliding_context,
    }
