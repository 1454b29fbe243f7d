"""/v1/sessions: conversations that are kept as token ids."""

from __future__ import annotations

import time
from array import array
from dataclasses import replace

from octavo.protocol.chat import ChatRequest
from octavo.protocol.sessions import SessionRequest, parse_fork, parse_rewind, parse_session
from octavo.sampling_params import SamplingParams
from octavo.server.exchange import Exchange
from octavo.server.generation import outputs_of, read
from octavo.server.next_turn import as_rendered, go_on
from octavo.server.session_turn import encoder
from octavo.server.sessions import Session

_ASKED = {"role": "user", "content": "?"}
_ANSWER = {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"}


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    sessions = loaded.sessions
    request = await read(exchange, parse_session)
    loaded.check_name(request.chat.model)
    sessions.check_room(exchange.tenant.name, 1, len(exchange.body))
    with loaded.admission.enter(exchange.tenant.name) as place:
        session = await _begin(exchange, request)
        if request.pin:
            place.take_tokens(len(session.ids))
            options = replace(request.chat.options, cache_salt=session.salt)
            computed = SamplingParams(max_tokens=0)
            await outputs_of(exchange, place, [list(session.ids)], computed, options)
    with sessions.adding([session]):
        await sessions.pin(session)
        await exchange.respond(await _told(exchange, session))


async def show(exchange: Exchange) -> None:
    sessions = exchange.service.loaded.sessions
    session = sessions.find(exchange.tenant.name, exchange.path_params["id"])
    await exchange.respond(await _told(exchange, session))


async def fork(exchange: Exchange) -> None:
    """Copy ids; nothing is computed."""
    sessions, tenant = exchange.service.loaded.sessions, exchange.tenant.name
    request = await read(exchange, parse_fork)
    with sessions.use(tenant, exchange.path_params["id"]) as session:
        sessions.check_room(tenant, request.count, request.count * session.size)
        forks = [session.fork() for _ in range(request.count)]
    with sessions.adding(forks):
        for each in forks:
            await sessions.pin(each)
        told = [await _told(exchange, each) for each in forks]
        await exchange.respond({"object": "list", "data": told})


async def rewind(exchange: Exchange) -> None:
    sessions = exchange.service.loaded.sessions
    request = await read(exchange, parse_rewind)
    with sessions.use(exchange.tenant.name, exchange.path_params["id"]) as session:
        if request.messages is not None:
            session.rewind_messages(request.messages)
        elif request.tokens is not None:
            session.rewind_tokens(request.tokens)
        await sessions.pin(session)
    await exchange.respond(await _told(exchange, session))


async def delete(exchange: Exchange) -> None:
    sessions = exchange.service.loaded.sessions
    with sessions.use(exchange.tenant.name, exchange.path_params["id"]) as session:
        sessions.remove(session)
    await exchange.respond({"id": session.id, "object": "session", "deleted": True})


async def _begin(exchange: Exchange, request: SessionRequest) -> Session:
    """Raises UsageError for a template that rewrites earlier turns."""
    chat = request.chat
    salt = exchange.tenant.salt(chat.options.cache_salt)
    session = Session(
        exchange.tenant.name, salt, request.ttl, request.pin, array("i"), None, chat.tools,
        chat.template_args,
    )  # fmt: skip
    if request.prompt is not None:
        session.ids.extend(await exchange.service.loaded.engine.encode(_prompt(request.prompt)))
        return session
    await _check_template(exchange, chat)
    ids = await encoder(exchange.service.loaded, chat)(chat.messages, False)
    session.keep(as_rendered(ids), chat.messages, len(exchange.body))
    return session


def _prompt(given: str | tuple[int, ...]) -> str | list[int]:
    return given if isinstance(given, str) else list(given)


async def _check_template(exchange: Exchange, chat: ChatRequest) -> None:
    """A template may render this conversation as it was, and forget what is said later."""
    encode = encoder(exchange.service.loaded, chat)
    asked = as_rendered(await encode([_ASKED], True))
    await go_on(encode, replace(asked, is_answered=True), [_ASKED, _ANSWER], [_ASKED])


async def _told(exchange: Exchange, session: Session) -> dict[str, object]:
    engine = exchange.service.loaded.engine
    ids = list(session.ids)
    return {
        "id": session.id,
        "object": "session",
        "created_at": session.created,
        "expires_at": int(time.time() + session.left),
        "tokens": len(ids),
        "messages": None if session.messages is None else len(session.messages),
        "pinned_tokens": 0 if session.pin is None else session.pin.num_tokens,
        "cached_tokens": await engine.cached(ids, session.salt),
    }
