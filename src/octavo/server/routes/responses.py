"""/v1/responses: answers, those that are kept, the end of those that are still written; and
/v1/responses/input_tokens, how long a prompt is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from octavo.errors import UsageError
from octavo.protocol.bodies import BodyError
from octavo.protocol.common import ApiError
from octavo.protocol.conversation import Turn
from octavo.protocol.responses.answer import ResponsesAnswer
from octavo.protocol.responses.input import read_input, with_instructions
from octavo.protocol.responses.request import ResponsesRequest, parse_count, parse_response
from octavo.request import RequestOptions
from octavo.server import session_turn
from octavo.server.admission import Place
from octavo.server.errors import wrong_method
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, now, options_of, read, read_nothing, turn_of
from octavo.server.next_turn import Kept, as_rendered, go_on
from octavo.server.packed import packed
from octavo.server.stored import StoredAnswer, weigh


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_response)
    exchange.outcome.cache_key = request.chat.cache_key
    loaded.check_name(request.chat.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        if request.session is not None:
            async with session_turn.begun(exchange, request.chat, request.session) as one:
                request = replace(request, chat=one.chat, own=one.chat.messages)
                await _answer(exchange, place, request, one.prompt, one.turn, one.options, one.keep)
        else:
            request, earlier = _after_earlier(exchange, request)
            turn = await turn_of(exchange, request.chat)
            options = await options_of(exchange, turn, request.chat.options)
            prompt = await _prompt(exchange, request, earlier)
            await _answer(exchange, place, request, prompt, turn, options)


async def count(exchange: Exchange) -> None:
    """How many tokens the prompt of the same request would have."""
    loaded = exchange.service.loaded
    request = await read(exchange, parse_count)
    loaded.check_name(request.chat.model)
    with loaded.admission.enter(exchange.tenant.name):
        request, earlier = _after_earlier(exchange, request)
        await turn_of(exchange, request.chat)
        prompt = await _prompt(exchange, request, earlier)
    found = {"object": "response.input_tokens", "input_tokens": len(prompt.ids)}
    await exchange.respond(found)


async def refuse(exchange: Exchange) -> None:
    """Clients that would rather have a WebSocket fall back when they are told so."""
    if exchange.headers.get("upgrade", "").lower() == "websocket":
        raise ApiError(426, "there is no WebSocket here: send requests by POST")
    raise wrong_method(["POST"])


async def show(exchange: Exchange) -> None:
    if exchange.query.get("stream") == "true":
        raise BodyError("stream: an answer that is kept is given whole: leave it out", "stream")
    found = exchange.service.stored.find(exchange.tenant.name, exchange.path_params["id"])
    if found is None:
        raise _unknown(exchange.path_params["id"])
    await exchange.respond_bytes(found.response, "application/json")


async def delete(exchange: Exchange) -> None:
    id = exchange.path_params["id"]
    if not exchange.service.stored.remove(exchange.tenant.name, id):
        raise _unknown(id)
    await exchange.respond({"id": id, "object": "response", "deleted": True})


async def cancel(exchange: Exchange) -> None:
    """End an answer that still streams, with what there is of it."""
    read_nothing(exchange)
    id, tenant = exchange.path_params["id"], exchange.tenant.name
    running = exchange.service.stored.find_running(tenant, id)
    if running is None and exchange.service.stored.find(tenant, id) is None:
        raise _unknown(id)
    if running is not None and running.cancel():
        await running.ended.wait()
        if running.response is not None:
            await exchange.respond(running.response)
            return
    raise ApiError(400, f"the response {id!r} has ended or does not stream: it cannot be cancelled")


def _after_earlier(
    exchange: Exchange, request: ResponsesRequest
) -> tuple[ResponsesRequest, StoredAnswer | None]:
    """The request behind the kept answer that it goes on from, if any. Raises ApiError."""
    id = request.previous
    if id is None:
        return request, None
    found = exchange.service.stored.find(exchange.tenant.name, id)
    if found is None:
        raise ApiError(
            404,
            f"previous_response_id={id!r}: there is no such response among those that are kept "
            "for the caller",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return request.after(found.messages), found


async def _prompt(
    exchange: Exchange, request: ResponsesRequest, earlier: StoredAnswer | None
) -> Kept:
    """The prompt, with the ids that were generated before if the template allows it; a conversation
    that is rendered anew is right too, and less of it is cached."""
    encode = session_turn.encoder(exchange.service.loaded, request.chat)
    messages = request.chat.messages
    if earlier is not None and earlier.kept is not None:
        before = with_instructions(request.instructions, earlier.messages)
        try:
            return await go_on(encode, earlier.kept, before, messages[len(before) :])
        except UsageError:
            pass
    return as_rendered(await encode(messages, True))


async def _answer(
    exchange: Exchange,
    place: Place,
    request: ResponsesRequest,
    prompt: Kept,
    turn: Turn,
    options: RequestOptions,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    loaded, stored = exchange.service.loaded, exchange.service.stored
    id, tenant = _new_id(exchange), exchange.tenant.name

    def keep(response: Mapping[str, Any]) -> None:
        if not request.store:
            return
        kept = None
        if output := exchange.outcome.outputs.get(0):
            (completion,) = output.outputs
            kept = prompt.answered(completion.token_ids, loaded.engine.tokenizer.eos_ids)
        messages = (*request.own, *read_input(response["output"]).messages)
        stored.add(tenant, id, StoredAnswer(packed(response), messages, kept, weigh(messages)))

    writer = ResponsesAnswer(
        request, id=id, created=now(), model=loaded.check_name(request.chat.model),
        vocabulary=loaded.engine.tokenizer, reader=turn.new_reader(),
        keep=keep,
    )  # fmt: skip
    exchange.failed = writer.failed
    work = asyncio.ensure_future(
        answer(
            exchange, place, [list(prompt.ids)], request.chat.params, options, writer,
            in_pieces=request.chat.stream.wanted, at_end=at_end,
        )
    )  # fmt: skip

    def is_growing() -> bool:
        return exchange.stream is not None and not exchange.outcome.outputs

    with stored.running(tenant, id, work, is_growing) as running:
        try:
            await work
        except asyncio.CancelledError:
            if not running.is_cancelled or exchange.stream is None:
                raise
            last, running.response = writer.cancelled()
            running.ended.set()  # who cancelled it waits for no slow reader
            await exchange.stream.write([last])
            await exchange.stream.end(done=False)


def _new_id(exchange: Exchange) -> str:
    """That of the request, which its client may have given to another one before."""
    stored, tenant = exchange.service.stored, exchange.tenant.name
    id = f"resp_{exchange.id.removeprefix('req_')}"
    is_taken = stored.find(tenant, id) or stored.find_running(tenant, id)
    return f"resp_{secrets.token_hex(16)}" if is_taken else id


def _unknown(id: str) -> ApiError:
    return ApiError(404, f"there is no response {id!r} among those that are kept for the caller")
