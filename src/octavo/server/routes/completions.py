"""/v1/completions."""

from __future__ import annotations

from octavo.protocol.completion_answer import CompletionAnswer
from octavo.protocol.completions import parse_completion
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, held_to, now, read


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_completion)
    model = loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        prompts = [await loaded.engine.encode(prompt) for prompt in request.prompts]
        options = await held_to(exchange, request.grammar, request.options)
        writer = CompletionAnswer(
            request, id=f"cmpl-{exchange.id.removeprefix('req_')}", created=now(), model=model,
            vocabulary=loaded.engine.tokenizer,
        )  # fmt: skip
        await answer(
            exchange, place, prompts, request.params, options, writer,
            in_pieces=request.stream.wanted,
            progress=writer.progress if request.stream.progress else None,
        )  # fmt: skip
