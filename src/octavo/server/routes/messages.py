"""/v1/messages and /v1/messages/count_tokens, of Anthropic's API."""

from __future__ import annotations

from octavo.protocol.messages.answer import MessageAnswer
from octavo.protocol.messages.request import MessagesRequest, parse_count, parse_messages
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, note, options_of, prompt_of, read

# Said by clients in headers; no answer depends on them.
_NOTED = ("anthropic-beta", "anthropic-user-profile-id", "anthropic-workspace-id")


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_messages)
    _note_headers(exchange)
    chat = request.chat
    model = loaded.check_name(chat.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        ids, turn = await prompt_of(exchange, chat)
        options = await options_of(exchange, turn, chat.options)
        _tell_marks(exchange, request)
        writer = MessageAnswer(
            id=f"msg_{exchange.id.removeprefix('req_')}", model=model,
            max_tokens=chat.params.max_tokens, num_tokens=len(ids),
            shows_thinking=request.shows_thinking, new_reader=turn.new_reader,
        )  # fmt: skip
        await answer(
            exchange, place, [ids], chat.params, options, writer, in_pieces=chat.stream.wanted
        )


async def count(exchange: Exchange) -> None:
    """What the same request would report as its input."""
    loaded = exchange.service.loaded
    request = await read(exchange, parse_count)
    _note_headers(exchange)
    loaded.check_name(request.chat.model)
    with loaded.admission.enter(exchange.tenant.name):
        ids, _ = await prompt_of(exchange, request.chat)
        await exchange.respond({"input_tokens": len(ids)})


def _note_headers(exchange: Exchange) -> None:
    note(exchange, [name for name in _NOTED if name in exchange.headers])


def _tell_marks(exchange: Exchange, request: MessagesRequest) -> None:
    """The prefix cache has the prompt like any other's; no mark holds it there."""
    if request.marks:
        exchange.told["x-octavo-pinned"] = "0"
