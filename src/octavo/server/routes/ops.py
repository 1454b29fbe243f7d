"""/health, /ready, /metrics and /openapi.json: whether the process lives, takes requests, how it
fares, and what may be asked of it."""

from __future__ import annotations

from octavo.server.exchange import Exchange
from octavo.server.openapi import document


async def health(exchange: Exchange) -> None:
    model = exchange.service.model
    warning = None if model is None else model.engine.info.kv_warning
    said = {} if warning is None else {"warning": warning}
    await exchange.respond({"status": "ok", **said})


async def ready(exchange: Exchange) -> None:
    state = exchange.service.state
    await exchange.respond({"status": state}, 200 if state == "ready" else 503)


async def metrics(exchange: Exchange) -> None:
    from octavo.server.metrics import MEDIA_TYPE, metrics_text  # a start need not wait for it

    await exchange.respond_bytes(metrics_text(exchange.service), MEDIA_TYPE)


async def openapi(exchange: Exchange) -> None:
    needs_key = exchange.service.keys.are_required
    model = exchange.service.model
    if model is None:
        await exchange.respond(document(needs_key=needs_key))
        return
    engine = model.engine
    await exchange.respond(
        document(
            needs_key=needs_key,
            names=() if "*" in model.names else model.names,
            num_tokens=engine.tokenizer.vocab_size,
            width=engine.embedding_size,
        )
    )
