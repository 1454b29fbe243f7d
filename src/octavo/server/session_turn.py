"""A turn of a session: its prompt, in ids that are kept, and what its answer leaves there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from octavo.protocol.bodies import BodyError
from octavo.protocol.chat import ChatRequest
from octavo.protocol.conversation import Turn
from octavo.protocol.tools.asked import Tools
from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.server.exchange import Exchange
from octavo.server.generation import options_of, turn_of
from octavo.server.next_turn import Encode, Kept, Messages, go_on
from octavo.server.service import Loaded
from octavo.server.sessions import Session


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn as it is asked of the engine; `keep` is done when its answer is there."""

    prompt: Kept
    chat: ChatRequest  # the whole conversation's
    turn: Turn
    options: RequestOptions
    keep: Callable[[], Awaitable[None]]


@asynccontextmanager
async def begun(exchange: Exchange, chat: ChatRequest, id: str) -> AsyncIterator[Begun]:
    """A turn of new messages in a session, which is nobody else's until its end. Raises
    BodyError."""
    loaded = exchange.service.loaded  # for the whole turn: while draining there is none for others
    check(chat.params, chat.options)
    size = len(exchange.body)
    with loaded.sessions.use(exchange.tenant.name, id, size) as session:
        prompt, whole = await _prompt_of(loaded, session, chat)
        turn = await turn_of(exchange, whole)
        options = await options_of(exchange, turn, chat.options, session.salt)

        async def keep() -> None:
            output = exchange.outcome.outputs[0]
            if has_drawn(output):
                await _keep(loaded, session, prompt, whole, turn, output, size)

        yield Begun(prompt, whole, turn, options, keep)


def has_drawn(output: RequestOutput) -> bool:
    """Whether there is an answer to keep, if an empty one: else the session stays as it was, and
    the prompt is warm for who says the same again."""
    return bool(output.outputs[0].token_ids)


def encoder(loaded: Loaded, chat: ChatRequest) -> Encode:
    """How messages of such a chat become ids."""

    async def encode(messages: Messages, generation: bool) -> list[int]:
        asked = replace(chat, messages=tuple(map(dict, messages)))
        turn = await asyncio.to_thread(loaded.conversation.turn, asked)
        return await loaded.engine.encode_chat(
            turn.messages,
            chat_template=loaded.chat_template,
            tools=turn.tools,
            template_args=turn.template_args,
            end="answer" if generation else "closed",
        )

    return encode


async def _prompt_of(
    loaded: Loaded, session: Session, chat: ChatRequest
) -> tuple[Kept, ChatRequest]:
    """The prompt of new messages, and the chat that they are part of. Raises UsageError."""
    if session.messages is None:
        raise BodyError("session: it is a plain prompt, and goes on in /v1/completions", "session")
    whole = replace(
        chat,
        messages=tuple(map(dict, (*session.messages, *chat.messages))),
        tools=session.tools if chat.tools is None else chat.tools,
        template_args={**session.template_args, **chat.template_args},
    )
    encode = encoder(loaded, whole)
    return await go_on(encode, session.kept, session.messages, chat.messages), whole


async def _keep(
    loaded: Loaded,
    session: Session,
    prompt: Kept,
    chat: ChatRequest,
    turn: Turn,
    output: RequestOutput,
    num_bytes: int,
) -> None:
    """The answer becomes part of the session, which a body of so many bytes asked for."""
    (completion,) = output.outputs
    kept = prompt.answered(completion.token_ids, loaded.engine.tokenizer.eos_ids)
    session.keep(kept, (*chat.messages, turn.message(completion.text)), num_bytes)
    session.tools, session.template_args = _lasting(chat.tools), chat.template_args
    await loaded.sessions.pin(session)


def _lasting(tools: Tools | None) -> Tools | None:
    """Return what the next turn has of these tools too: a choice is of one turn, unless the model
    was told of no tool by it."""
    if tools is None or tools.choice == "none":
        return tools
    return Tools(tools.every)


def check(params: SamplingParams, options: RequestOptions) -> None:
    """Raises BodyError for what a session cannot go on with."""
    if params.n != 1:
        raise BodyError("n: a session has one answer a turn; fork it for several", "n")
    if params.beam_width:
        raise BodyError("use_beam_search: not in a session", "use_beam_search")
    if options.cache_salt:
        raise BodyError("cache_salt: a session has one of its own: leave it out", "cache_salt")
