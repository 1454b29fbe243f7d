"""/v1/messages and /v1/messages/count_tokens, of Anthropic's API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from octavo.errors import UsageError
from octavo.protocol.chat import ChatRequest
from octavo.protocol.messages.answer import MessageAnswer
from octavo.protocol.messages.blocks import Mark
from octavo.protocol.messages.request import parse_count, parse_messages
from octavo.server.exchange import Exchange
from octavo.server.generation import answer, encoded, note, options_of, prompt_of, read

# Said by clients in headers; no answer depends on them.
_NOTED = ("anthropic-beta", "anthropic-user-profile-id", "anthropic-workspace-id")

_NOTHING_SAID = ({"role": "user", "content": ""},)  # for a mark that stands before all messages


async def create(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_messages)
    _note_headers(exchange)
    chat = request.chat
    model = loaded.check_name(chat.model)
    with loaded.admission.enter(exchange.tenant.name) as place:
        ids, turn = await prompt_of(exchange, chat)
        options = await options_of(exchange, turn, chat.options)
        marked = [await _up_to(exchange, chat, mark, ids) for mark in _last(request.marks)]
        writer = MessageAnswer(
            id=f"msg_{exchange.id.removeprefix('req_')}", model=model,
            max_tokens=chat.params.max_tokens, num_tokens=len(ids),
            shows_thinking=request.shows_thinking, new_reader=turn.new_reader,
            vocabulary=loaded.engine.tokenizer,
        )  # fmt: skip

        async def keep() -> None:
            pins = [
                await loaded.pins.keep(
                    ids[:count], options.cache_salt, seconds, exchange.tenant.name
                )
                for count, seconds in marked
            ]
            if pins:
                writer.pin = pin = max(pins, key=lambda each: each.num_tokens)
                why = f"; {pin.why_not}" if pin.why_not else ""
                exchange.told["x-octavo-pinned"] = f"{pin.num_tokens}{why}"

        await answer(
            exchange, place, [ids], chat.params, options, writer, in_pieces=chat.stream.wanted,
            at_end=keep,
        )  # fmt: skip


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


def _last(marks: Sequence[Mark]) -> list[Mark]:
    """Those that hold most: the last one, and the last of those that last longer."""
    longer = [mark for mark in marks if mark.seconds > marks[-1].seconds]
    return [*longer[-1:], *marks[-1:]]


async def _up_to(
    exchange: Exchange, chat: ChatRequest, mark: Mark, ids: Sequence[int]
) -> tuple[int, int]:
    """How many tokens of the prompt `ids` come up to a mark, and how many seconds they are kept:
    those that the prompt has in common with one that ends there."""
    if mark.messages == chat.messages:
        return len(ids), mark.seconds
    try:
        up_to = replace(chat, messages=mark.messages or _NOTHING_SAID, end="answer")
        cut, _ = await encoded(exchange, up_to)
    except UsageError:  # a template that takes no such conversation
        return 0, mark.seconds
    pairs = zip(ids, cut, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), mark.seconds
