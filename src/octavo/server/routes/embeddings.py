"""/v1/embeddings."""

from __future__ import annotations

from dataclasses import replace

from octavo.protocol.embeddings import embedding_response, parse_embeddings
from octavo.request import RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.server.exchange import Exchange
from octavo.server.generation import cache_line, ids_of, outputs_of, own_options, read

_AT_ONCE = 64  # inputs that are given to the engine together


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_embeddings)
    model = loaded.check_name(request.model)
    request.check_dimensions(loaded.engine.embedding_size)
    with loaded.admission.enter(exchange.tenant.name) as place:
        inputs = await ids_of(exchange, request.inputs, "input")
        place.take_tokens(sum(map(len, inputs)))
        own = own_options(exchange, request.options)
        options = replace(own, pooling=exchange.service.config.pooling)
        outputs: list[RequestOutput] = []
        for start in range(0, len(inputs), _AT_ONCE):
            some = inputs[start : start + _AT_ONCE]
            outputs += await outputs_of(exchange, place, some, SamplingParams(), options)
        found = embedding_response(request, outputs, model=model)
        await exchange.respond(found, headers={"x-octavo-cache": cache_line(outputs)})
