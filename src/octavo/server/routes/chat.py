"""/v1/chat/completions."""

from __future__ import annotations

from octavo.protocol.chat import parse_chat
from octavo.protocol.chat_answer import ChatAnswer
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, now, options_of, prompt_of, read


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_chat)
    model = loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        ids, turn = await prompt_of(exchange, request)
        options = await options_of(exchange, turn, request.options)
        writer = ChatAnswer(
            request, id=f"chatcmpl-{exchange.id.removeprefix('req_')}", created=now(), model=model,
            vocabulary=loaded.engine.tokenizer, new_reader=turn.new_reader,
        )  # fmt: skip
        await answer(
            exchange, place, [ids], request.params, options, writer,
            in_pieces=request.stream.wanted,
            progress=writer.progress if request.stream.progress else None,
        )  # fmt: skip
