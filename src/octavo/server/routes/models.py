"""/v1/models: the one model there is, under each of its names."""

from __future__ import annotations

from octavo.errors import ModelNotFoundError
from octavo.server.exchange import Exchange
from octavo.server.service import Loaded


async def list_all(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    found = [_model(loaded, name, exchange) for name in _names(loaded)]
    await exchange.respond({"object": "list", "data": found, "models": found})


async def show(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    name = exchange.path_params["id"]
    if name not in _names(loaded):
        raise ModelNotFoundError(f"there is no model {name!r}: /v1/models lists what there is")
    await exchange.respond(_model(loaded, name, exchange))


def _names(loaded: Loaded) -> list[str]:
    return [name for name in loaded.names if name != "*"]


def _model(loaded: Loaded, name: str, exchange: Exchange) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": exchange.service.started,
        "owned_by": "octavo",
        "root": loaded.names[0],
        "max_model_len": loaded.engine.info.context,
    }
