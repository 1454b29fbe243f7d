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
from octavo.server.generation import answer, now, options_of, prompt_of, read, turn_of


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_chat)
    exchange.outcome.cache_key = request.cache_key
    loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        if request.session is not None:
            await _go_on(exchange, place, request, request.session)
            return
        ids, turn = await prompt_of(exchange, request)
        options = await options_of(exchange, turn, request.options)
        await _answer(exchange, place, request, ids, turn, options)


async def _go_on(exchange: Exchange, place: Place, request: ChatRequest, id: str) -> None:
    """Answer new messages of a session, which then has them and the answer."""
    loaded = exchange.service.loaded  # for the whole turn: while draining there is none for others
    session_turn.check(request.params, request.options)
    size = len(exchange.body)
    with loaded.sessions.use(exchange.tenant.name, id, size) as session:
        prompt, whole = await session_turn.prompt_of(loaded, session, request)
        turn = await turn_of(exchange, whole)
        options = await options_of(exchange, turn, request.options, session.salt)

        async def keep() -> None:
            output = exchange.outcome.outputs[0]
            await session_turn.keep(loaded, session, prompt, whole, turn, output, size)

        await _answer(exchange, place, request, list(prompt.ids), turn, options, keep)


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
