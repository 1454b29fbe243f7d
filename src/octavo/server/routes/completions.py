"""/v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from octavo.protocol.bodies import BodyError
from octavo.protocol.completion_answer import CompletionAnswer
from octavo.protocol.completions import CompletionRequest, parse_completion
from octavo.server import session_turn
from octavo.server.admission import Place
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, held_to, ids_of, now, read


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_completion)
    exchange.outcome.cache_key = request.cache_key
    loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        if request.session is not None:
            await _go_on(exchange, place, request, request.session)
        else:
            prompts = await ids_of(exchange, request.prompts, "prompt")
            await _answer(exchange, place, request, prompts)


async def _go_on(exchange: Exchange, place: Place, request: CompletionRequest, id: str) -> None:
    """Answer more of a session's text; it is a plain prompt from then on."""
    loaded = exchange.service.loaded
    session_turn.check(request.params, request.options)
    if len(request.prompts) > 1 or request.echo or request.num_given is not None:
        raise BodyError("session: one prompt, no echo and no best_of", "session")
    (prompt,) = request.prompts
    with loaded.sessions.use(exchange.tenant.name, id, len(exchange.body)) as session:
        more: Sequence[int] = ()
        if not isinstance(prompt, str):
            more = prompt
        elif prompt:
            more = await asyncio.to_thread(
                loaded.engine.tokenizer.encode, prompt, add_special=False
            )
        ids = [*session.ids, *more]

        async def keep() -> None:
            output = exchange.outcome.outputs[0]
            if not session_turn.has_drawn(output):
                return
            (completion,) = output.outputs
            session.become_plain([*ids, *completion.token_ids])
            await loaded.sessions.pin(session)

        await _answer(exchange, place, request, [ids], session.salt, keep)


async def _answer(
    exchange: Exchange,
    place: Place,
    request: CompletionRequest,
    prompts: Sequence[Sequence[int]],
    salt: str | None = None,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    loaded = exchange.service.loaded
    options = await held_to(exchange, request.grammar, request.grammar_field, request.options, salt)
    writer = CompletionAnswer(
        request, id=f"cmpl-{exchange.id.removeprefix('req_')}", created=now(),
        model=loaded.check_name(request.model), vocabulary=loaded.engine.tokenizer,
    )  # fmt: skip
    await answer(
        exchange, place, prompts, request.params, options, writer,
        in_pieces=request.stream.wanted,
        progress=writer.progress if request.stream.progress else None,
        at_end=at_end,
    )  # fmt: skip
