"""Lines to answers: all their prompts go to the model together, and one that it refuses harms no
other.

Knows no files. An answer is what the model gave for each prompt of a line, or the error that stands
in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from octavo.batch_job.source import Entry
from octavo.errors import OctavoError, OutOfMemoryError, UsageError
from octavo.grammar import GrammarSpec
from octavo.protocol.answer import AnswerReader, plain_reader
from octavo.protocol.chat import ChatRequest
from octavo.protocol.common import failure
from octavo.protocol.completions import CompletionRequest
from octavo.protocol.conversation import Conversation
from octavo.request import RequestOptions, RequestOutput

if TYPE_CHECKING:
    from octavo.serving.llm import LLM


@dataclass(slots=True)
class Asked:
    """A line on its way: its prompts go to the model one by one."""

    index: int
    entry: Entry
    outputs: dict[int, RequestOutput] = field(default_factory=dict)  # by place of the prompt
    num_prompts: int = 1
    failed: bool = False
    new_reader: Callable[[], AnswerReader] = plain_reader  # of a chat's answers


@dataclass(frozen=True, slots=True)
class _Part:
    """One prompt of a line, as token ids."""

    of: Asked
    place: int
    prompt: list[int]
    options: RequestOptions


def answer(
    llm: LLM, asked: Iterable[Asked], template: str | None
) -> Iterator[tuple[Asked, list[RequestOutput] | OctavoError]]:
    """Yield the outcome of each line once, as it is done."""
    parts: list[_Part] = []
    conversation = Conversation(
        lambda tools: template or llm.template_for(tools=tools), llm.tokenizer.control_id
    )
    for one in asked:
        try:
            parts += _parts(llm, one, template, conversation)
        except UsageError as error:
            yield one, error
    for part, outcome in _outcomes(llm, parts):
        one = part.of
        if one.failed:
            continue
        if isinstance(outcome, OctavoError):
            one.failed = True
            yield one, outcome
            continue
        one.outputs[part.place] = outcome
        if len(one.outputs) == one.num_prompts:
            yield one, _checked([one.outputs[place] for place in range(one.num_prompts)])


def _parts(llm: LLM, one: Asked, template: str | None, conversation: Conversation) -> list[_Part]:
    request = one.entry.request
    if isinstance(request, ChatRequest):
        turn = conversation.turn(request)
        tokens = llm.encode_chat(
            turn.messages,
            chat_template=template,
            tools=turn.tools,
            template_args=turn.template_args,
            end=request.end,
        )
        one.new_reader = turn.new_reader
        options = replace(_held_to(llm, turn.grammar, request), shown_tokens=turn.shown_tokens)
        return [_Part(one, 0, llm.encode(tokens), options)]  # which checks their number too
    one.num_prompts = len(request.prompts)
    options = _held_to(llm, request.grammar, request)
    return [_Part(one, place, llm.encode(p), options) for place, p in enumerate(request.prompts)]


def _held_to(
    llm: LLM, grammar: GrammarSpec | None, request: ChatRequest | CompletionRequest
) -> RequestOptions:
    constraint = None if grammar is None else llm.compile_grammar(grammar)
    return replace(request.options, constraint=constraint)


def _outcomes(
    llm: LLM, parts: Sequence[_Part]
) -> Iterator[tuple[_Part, RequestOutput | OctavoError]]:
    """Yield the outcome of each part. What the engine refuses stops the whole call, so the rest is
    halved until that is alone."""
    if not parts:
        return
    left = dict(enumerate(parts))
    params = [part.of.entry.request.params for part in parts]
    options = [part.options for part in parts]
    try:
        for place, output in llm.as_completed([part.prompt for part in parts], params, options):
            yield left.pop(place), output
        return
    except (UsageError, OutOfMemoryError) as error:
        rest, refused = list(left.values()), error
    if len(rest) == 1:
        yield rest[0], refused
        return
    yield from _outcomes(llm, rest[: len(rest) // 2])
    yield from _outcomes(llm, rest[len(rest) // 2 :])


def _checked(outputs: list[RequestOutput]) -> list[RequestOutput] | OctavoError:
    return failure(outputs) or outputs
