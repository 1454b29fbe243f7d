"""/v1/responses: answers, those that are kept, and the end of those that are still written."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from octavo.protocol.bodies import BodyError
from octavo.protocol.common import ApiError
from octavo.protocol.responses.answer import ResponsesAnswer
from octavo.protocol.responses.input import read_input
from octavo.protocol.responses.request import ResponsesRequest, parse_response
from octavo.server.admission import Place
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, now, options_of, prompt_of, read
from octavo.server.stored import StoredAnswer


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = _continued(exchange, await read(exchange, parse_response))
    loaded.check_name(request.chat.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        await _answer(exchange, place, request)


async def refuse(exchange: Exchange) -> None:
    """Clients that would rather have a WebSocket fall back when they are told so."""
    if exchange.headers.get("upgrade", "").lower() == "websocket":
        raise ApiError(426, "there is no WebSocket here: send requests by POST")
    raise HTTPException(405)


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
    id, tenant = exchange.path_params["id"], exchange.tenant.name
    running = exchange.service.stored.find_running(tenant, id)
    if running is not None:
        running.cancel()
        await running.ended.wait()
        if running.response is not None:
            await exchange.respond(running.response)
            return
    elif exchange.service.stored.find(tenant, id) is None:
        raise _unknown(id)
    raise ApiError(400, f"the response {id!r} has ended, and cannot be cancelled")


def _continued(exchange: Exchange, request: ResponsesRequest) -> ResponsesRequest:
    """The request behind the conversation that it goes on from. Raises ApiError."""
    if request.previous is None:
        return request
    found = exchange.service.stored.find(exchange.tenant.name, request.previous)
    if found is None:
        raise ApiError(
            404,
            f"previous_response_id={request.previous!r}: there is no such response among those "
            "that are kept for the caller",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return request.after(found.messages)


async def _answer(exchange: Exchange, place: Place, request: ResponsesRequest) -> None:
    loaded, stored = exchange.service.loaded, exchange.service.stored
    ids, turn = await prompt_of(exchange, request.chat)
    options = await options_of(exchange, turn, request.chat.options)
    id, tenant = _new_id(exchange), exchange.tenant.name

    def keep(response: Mapping[str, Any]) -> None:
        if request.store:
            said = read_input(response["output"]).messages
            messages = (*request.own, *said)
            stored.add(
                tenant, id, StoredAnswer(orjson.dumps(response), messages, len(exchange.body))
            )

    writer = ResponsesAnswer(
        request, id=id, created=now(), model=loaded.check_name(request.chat.model),
        vocabulary=loaded.engine.tokenizer, reader=turn.new_reader(),
        keep=keep,
    )  # fmt: skip
    exchange.failed = writer.failed
    work = asyncio.ensure_future(
        answer(
            exchange, place, [ids], request.chat.params, options, writer,
            in_pieces=request.chat.stream.wanted,
        )
    )  # fmt: skip
    with stored.running(tenant, id, work) as running:
        try:
            await work
        except asyncio.CancelledError:
            if not running.is_cancelled or exchange.stream is None:
                raise
            last, running.response = writer.cancelled()
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
