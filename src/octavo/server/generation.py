"""The way of every answer that is generated: its prompts are given to the engine under the place
that it has taken, and what comes is written as the route's API says, whole or in pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import orjson

from octavo.errors import GrammarError, PromptTooLongError, UsageError
from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError, read_body
from octavo.protocol.chat import ChatRequest
from octavo.protocol.common import ApiError, cache_of, ended_by, failure
from octavo.protocol.conversation import Turn
from octavo.protocol.sampling import named_as
from octavo.protocol.streams import AnswerWriter
from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.server.admission import Place
from octavo.server.exchange import Exchange
from octavo.server.pieces import Pieces, Stream, TellProgress, telling

T = TypeVar("T")
_LARGE = 8 << 10  # bytes of a body above which it is parsed beside the event loop


class Noted(Protocol):
    @property
    def noted(self) -> Sequence[str]: ...


N = TypeVar("N", bound=Noted)


async def read(exchange: Exchange, parse: Callable[[object], N]) -> N:
    """Read the body as `parse` does; none is as good as an empty object. Raises BodyError; with
    --strict also for what is only noted."""
    request = await beside(len(exchange.body), lambda: parse(_json(exchange.body)))
    note(exchange, request.noted)
    return request


def read_nothing(exchange: Exchange) -> None:
    """Raises BodyError for a body that says something, of a route that takes none."""
    read_body(_json(exchange.body), {})


async def prompt_of(exchange: Exchange, asked: ChatRequest) -> tuple[list[int], Turn]:
    """The token ids of a chat, and how its answer is read; what changes no answer is noted."""
    ids, turn = await encoded(exchange, asked)
    _tell(exchange, turn)
    return ids, turn


async def turn_of(exchange: Exchange, asked: ChatRequest) -> Turn:
    """How the answer of a chat is read; what changes no answer is noted."""
    turn = await asyncio.to_thread(exchange.service.loaded.conversation.turn, asked)
    _tell(exchange, turn)
    return turn


def _tell(exchange: Exchange, turn: Turn) -> None:
    if turn.asked is not None and turn.asked.told:
        exchange.told["x-octavo-tools"] = turn.tool_format.name
    note(exchange, turn.noted)


async def encoded(exchange: Exchange, asked: ChatRequest) -> tuple[list[int], Turn]:
    """Return a chat's token ids too, and how its answer is read; nothing is noted."""
    loaded = exchange.service.loaded
    turn = await asyncio.to_thread(loaded.conversation.turn, asked)
    ids = await loaded.engine.encode_chat(
        turn.messages,
        chat_template=loaded.chat_template,
        tools=turn.tools,
        template_args=turn.template_args,
        end=asked.end,
    )
    return ids, turn


async def options_of(
    exchange: Exchange, turn: Turn, options: RequestOptions, salt: str | None = None
) -> RequestOptions:
    """The options of a chat's request: what `held_to` says, and what its reader must see. Raises
    BodyError."""
    held = await held_to(exchange, turn.grammar, turn.grammar_field, options, salt)
    return replace(held, shown_tokens=turn.shown_tokens)


async def held_to(
    exchange: Exchange,
    grammar: GrammarSpec | None,
    field: str,
    options: RequestOptions,
    salt: str | None = None,
) -> RequestOptions:
    """The options of a request of this tenant, whose answers are held to the grammar that a field
    asks for; `salt` is a session's own. Raises BodyError for one that cannot be kept."""
    engine = exchange.service.loaded.engine
    try:
        constraint = None if grammar is None else await engine.compile_grammar(grammar)
    except GrammarError as error:
        assert grammar is not None
        if grammar.instead is not None or grammar.frame is not None:
            field = await _wrong_one(exchange, grammar, field)
        raise BodyError(f"{field}: {error}", field) from None
    return replace(own_options(exchange, options, salt), constraint=constraint)


def own_options(
    exchange: Exchange, options: RequestOptions, salt: str | None = None
) -> RequestOptions:
    """The options as this tenant's: under its salt, or a session's own. Raises ApiError where it
    would go before the others."""
    tenant, is_shared = exchange.tenant, exchange.service.keys.num_tenants > 1
    if options.priority < 0 and is_shared and not tenant.is_admin:
        raise ApiError(
            403,
            f"priority={options.priority}: this server has several tenants, and only a key with "
            "`admin` may go before the others: give 0 or more",
            param="priority",
        )
    return replace(options, cache_salt=tenant.salt(options.cache_salt) if salt is None else salt)


async def _wrong_one(exchange: Exchange, grammar: GrammarSpec, field: str) -> str:
    """The field that a grammar of two does not compile for: its own, or else the tools'."""
    try:
        alone = replace(grammar, instead=None, frame=None)
        await exchange.service.loaded.engine.compile_grammar(alone)
    except GrammarError:
        return field
    return "tools"


async def ids_of(
    exchange: Exchange, prompts: Sequence[str | Sequence[int]], field: str
) -> list[list[int]]:
    """The token ids of prompts that stand in a field of the body. Raises BodyError, which says
    which of them is wrong, and PromptTooLongError."""
    found = []
    for i, prompt in enumerate(prompts):
        try:
            found.append(await exchange.service.loaded.engine.encode(prompt))
        except PromptTooLongError:
            raise
        except UsageError as error:
            place = field if len(prompts) == 1 else f"{field}[{i}]"
            raise BodyError(f"{place}: {error}", place) from None
    return found


def note(exchange: Exchange, names: Sequence[str]) -> None:
    """Say that these change no answer. Raises BodyError with --strict."""
    exchange.noted += names
    if names and exchange.service.config.strict:
        name = names[0]
        raise BodyError(f"{name} changes no answer, and this server is strict: leave it out", name)


async def beside(size: int, work: Callable[[], T]) -> T:
    """Do `work` on so many bytes: what may take long in a thread."""
    return work() if size <= _LARGE else await asyncio.to_thread(work)


async def answer(
    exchange: Exchange,
    place: Place,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    options: RequestOptions,
    writer: AnswerWriter,
    *,
    in_pieces: bool,
    progress: TellProgress | None = None,
    at_end: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer prompts, each by the same parameters, and write what comes; with `progress`, also how
    far the prompts are. `at_end` is done when all is computed, and before the end is written."""
    engine = exchange.service.loaded.engine
    place.take_tokens(sum(map(len, prompts)))
    with named_as({}):
        streams = [engine.stream(ids, params, options, pieces=in_pieces) for ids in prompts]
    place.wait_for(streams)
    exchange.outcome.ask(prompts, streams)
    try:
        if in_pieces:
            await _write_pieces(exchange, streams, writer, progress, at_end)
        else:
            outputs = await _outputs(exchange, streams)
            if at_end is not None:
                await at_end()
            headers = {"x-octavo-cache": cache_line(outputs)}
            for why in ended_by(outputs).values():
                headers["x-octavo-ended-by"] = str(why)
            await exchange.respond(writer.whole(outputs), headers=headers)
    finally:
        for stream in streams:
            await stream.aclose()


async def outputs_of(
    exchange: Exchange,
    place: Place,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    options: RequestOptions,
) -> list[RequestOutput]:
    """What the engine gives for prompts, whole, under a place that knows their tokens."""
    engine = exchange.service.loaded.engine
    streams = [engine.stream(ids, params, options, pieces=False) for ids in prompts]
    place.wait_for(streams)
    exchange.outcome.ask(prompts, streams)
    try:
        return await _outputs(exchange, streams)
    finally:
        for stream in streams:
            await stream.aclose()


def cache_line(outputs: Sequence[RequestOutput]) -> str:
    """What the cache gave, for a header."""
    found = cache_of(outputs)
    parts = [f"matched={found['matched_tokens']}"]
    if found["reason"] is not None:
        parts.append(f"reason={found['reason']}")
    if found["saved_ms"] is not None:
        parts.append(f"saved_ms={found['saved_ms']:.1f}")
    return ", ".join(parts)


async def _write_pieces(
    exchange: Exchange,
    streams: Sequence[Stream],
    writer: AnswerWriter,
    progress: TellProgress | None,
    at_end: Callable[[], Awaitable[None]] | None,
) -> None:
    service = exchange.service
    service.tally.streams += 1
    try:
        async with await exchange.open_stream() as events:
            await events.write(writer.begin())
            outputs = exchange.outcome.outputs
            async with telling(events, streams, progress) as told:
                await Pieces(
                    events, streams, writer, exchange.outcome, told,
                    beat=service.beat, gap=lambda: service.stream_gap,
                ).write_all()  # fmt: skip
            whole = [outputs[i] for i in range(len(streams))]
            _check(whole)
            if at_end is not None:
                await at_end()
            await events.write(writer.end(whole))
            await events.end(done=writer.ends_with_done)
    finally:
        service.tally.streams -= 1


async def _outputs(exchange: Exchange, streams: Sequence[Stream]) -> list[RequestOutput]:
    outputs = await asyncio.gather(*map(_last, streams))
    exchange.outcome.answer(outputs)
    _check(outputs)
    return outputs


async def _last(stream: Stream) -> RequestOutput:
    output = None
    async for chunk in stream:
        output = chunk.output
    assert output is not None, "the last piece has the output"
    return output


def _check(outputs: Sequence[RequestOutput]) -> None:
    """Raises OctavoError where an answer was broken off."""
    if error := failure(outputs):
        raise error


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise BodyError(f"the body is not JSON: {error}") from None


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
