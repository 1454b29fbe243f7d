"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from octavo.protocol.chat import ChatRequest, parse_chat
from octavo.protocol.chat_answer import ChatAnswer
from octavo.protocol.conversation import Turn
from octavo.request import RequestOptions
from octavo.server import session_turn
from octavo.server.admission import Place
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, now, options_of, prompt_of, read


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_chat)
    exchange.outcome.cache_key = request.cache_key
    loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        if request.session is not None:
            async with session_turn.begun(exchange, request, request.session) as one:
                ids = list(one.prompt.ids)
                await _answer(exchange, place, request, ids, one.turn, one.options, one.keep)
            return
        ids, turn = await prompt_of(exchange, request)
        options = await options_of(exchange, turn, request.options)
        await _answer(exchange, place, request, ids, turn, options)


async def _answer(
    exchange: Exchange,
    place: Place,
    request: ChatRequest,
    ids: Sequence[int],
    turn: Turn,
    options: RequestOptions,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    loaded = exchange.service.loaded
    writer = ChatAnswer(
        request, id=f"chatcmpl-{exchange.id.removeprefix('req_')}", created=now(),
        model=loaded.check_name(request.model), vocabulary=loaded.engine.tokenizer,
        new_reader=turn.new_reader,
    )  # fmt: skip
    await answer(
        exchange, place, [ids], request.params, options, writer,
        in_pieces=request.stream.wanted,
        progress=writer.progress if request.stream.progress else None,
        at_end=at_end,
    )  # fmt: skip
