"""/v1/responses and /v1/responses/input_tokens: the bodies in.

Comes in: parsed JSON. Goes out: a ChatRequest, as every chat has it, and what only this API has:
whom calls mean, what is stored, what is told back. Both routes read a conversation by the same
words, so that what one counts the other computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.errors import kind_of
from octavo.protocol.bodies import (
    Body,
    BodyError,
    Fields,
    read_body,
    read_flag,
    read_kind,
    read_text,
    refuse_unknown,
)
from octavo.protocol.chat import ChatRequest, read_effort, read_template_args
from octavo.protocol.fields import (
    OPTIONS,
    Table,
    as_option,
    honoured,
    noted,
    of_options,
    refused,
    table,
)
from octavo.protocol.responses.input import read_input, with_instructions
from octavo.protocol.responses.tools import Told, read_tools
from octavo.protocol.rules import Switch, check_rules, said
from octavo.protocol.sampling import (
    STREAMS,
    Streaming,
    read_cache_key,
    read_model,
    read_options,
    read_params,
    sessions,
)
from octavo.protocol.structured import Structured, read_format
from octavo.protocol.tools.asked import NEEDS_TOOLS
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "ignore_eos"),
)
_CONVERSATION = (
    honoured("model", "The name of the model; without it, the one that is loaded", str),
    honoured("input", "A text, or the items of the conversation", str, list),
    honoured("instructions", "What the system message says, for this answer alone", str),
    honoured("previous_response_id", "The stored answer that this goes on from", str),
    honoured("tools", "Functions, custom tools, namespaces of them", list),
    honoured("tool_choice", "none, auto, required, one tool, or allowed_tools", str, dict),
    honoured("parallel_tool_calls", "Whether one answer may call several", bool),
    honoured("text", "format: text, json_object or json_schema", dict),
    honoured("reasoning", "effort: how much, where the chat template has a switch", dict),
    honoured("chat_template_kwargs", "Variables for the chat template: scalars", dict),
    honoured("truncation", "disabled: a prompt is never cut", str),
)
RESPONSES_FIELDS: Table = table(
    *_CONVERSATION,
    honoured(
        "store",
        "Keep the answer, so that others can go on from it, and a stream that failed; default true",
        bool,
    ),
    honoured(
        "session",
        "The id of the session that this goes on: the rest is what is new, and without a token "
        "drawn the session stays as it was",
        str,
    ),
    honoured("stream", "Give the answer in pieces, as server-sent events", bool),
    honoured("stream_options", "include_cache: the last event says what the cache did", dict),
    as_option(
        "max_output_tokens",
        "Most tokens of an answer; default: up to the context, or N of one that slides",
        SamplingParams,
        "max_tokens",
    ),
    as_option(
        "top_logprobs",
        "Give log-probabilities of each token, and of this many others",
        SamplingParams,
        "logprobs",
    ),
    honoured("include", "message.output_text.logprobs; all else is noted", list),
    honoured("metadata", "A label, which the answer tells back", dict),
    honoured("prompt_cache_key", "A label by which cache hits can be looked at", str),
    *of_options(SamplingParams, _SAMPLING),
    *of_options(RequestOptions, OPTIONS),
    *noted("user", "safety_identifier", "service_tier", "client_metadata"),
    *noted("prompt_cache_retention", "prompt_cache_options", "context_management"),
    *(refused(name) for name in ("max_tool_calls", "prompt")),
    *(refused(name) for name in ("access_programs", "background_options", "image")),
    refused("n", 1),
)
COUNT_FIELDS: Table = table(*_CONVERSATION, refused("personality"))
_CHECKED = (
    Switch(STREAMS.by, STREAMS.how, only=(said("stream_options", {}),)),
    # A session has a beginning of its own.
    sessions(said("instructions"), said("previous_response_id")),
)
RESPONSES_RULES = (*_CHECKED, NEEDS_TOOLS)
_LOGPROBS = "message.output_text.logprobs"
_TOLD_BACK = ("metadata", "reasoning", "text", "tool_choice", "tools")
_DEEPEST = 128  # levels: JSON is read to 1,024 of them, and written to 254
OF_STREAM_OPTIONS = ("include_obfuscation", "include_cache")
OF_TEXT = ("format", "verbosity")
OF_REASONING = ("effort", "summary", "generate_summary")


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    chat: ChatRequest  # its messages: instructions and input, nothing of earlier answers
    told: Told = field(default_factory=Told)  # the tools
    instructions: str | None = None
    own: tuple[Mapping[str, Any], ...] = ()  # messages of the input
    previous: str | None = None
    session: str | None = None  # that the input goes on
    store: bool = True
    given: Mapping[str, Any] = field(
        default_factory=dict
    )  # fields of the body that an answer tells back

    @property
    def noted(self) -> tuple[str, ...]:
        return self.chat.noted

    def after(self, earlier: Sequence[Mapping[str, Any]]) -> ResponsesRequest:
        """Return it behind a conversation, whose instructions do not hold any more."""
        both = (*earlier, *self.own)
        messages = with_instructions(self.instructions, both)
        return replace(self, own=both, chat=replace(self.chat, messages=messages))


def parse_response(body: object) -> ResponsesRequest:
    """Raises BodyError, which names the field."""
    return _read(read_body(body, RESPONSES_FIELDS))


def parse_count(body: object) -> ResponsesRequest:
    """Read a request whose prompt is only counted. Raises BodyError."""
    return _read(read_body(body, COUNT_FIELDS))


def _read(read: Body) -> ResponsesRequest:
    fields = read.fields
    check_rules(fields, _CHECKED)
    _check_truncation(fields)
    for name in _TOLD_BACK:
        _check_depth(name, fields.get(name))
    input = read_input(fields.get("input"))
    if not input.messages:
        raise BodyError("input: expected at least one item", "input")
    told = read_tools(fields)
    structured, of_text = _read_text_format(fields)
    effort, of_reasoning = _read_reasoning(fields)
    logprobs, of_include = _read_logprobs(fields)
    stream, of_stream = _read_stream(fields)
    own = {"max_tokens": fields.get("max_output_tokens"), "logprobs": logprobs}
    spelling = {"max_tokens": "max_output_tokens", "logprobs": "top_logprobs"}
    instructions = read_text(fields, "instructions")
    noted = (*read.noted, *input.noted, *of_text, *of_reasoning, *of_include, *of_stream)
    if "truncation" in fields:
        noted = (*noted, "truncation")
    return ResponsesRequest(
        chat=ChatRequest(
            model=read_model(fields),
            messages=with_instructions(instructions, input.messages),
            tools=told.tools,
            effort=effort,
            effort_fields=("reasoning.effort",),
            template_args=read_template_args(fields),
            grammar=structured.spec,
            grammar_field=structured.field,
            params=read_params(fields, own, spelling),
            options=replace(read_options(fields), begins_turn=True),
            stream=stream,
            cache_key=read_cache_key(fields),
            noted=noted,
        ),
        told=told,
        instructions=instructions,
        own=tuple(input.messages),
        previous=read_text(fields, "previous_response_id"),
        session=read_text(fields, "session"),
        store=fields.get("store") is not False,
        given=fields,
    )


def _read_text_format(fields: Fields) -> tuple[Structured, list[str]]:
    given = read_kind(fields, "text", dict) or {}
    refuse_unknown("text", given, OF_TEXT)
    noted = ["text.verbosity"] if given.get("verbosity") is not None else []
    asked = given.get("format")
    place = "text.format"
    found = Structured(None, place) if asked is None else read_format(_named(asked), place)
    return found, noted


def _named(asked: object) -> object:
    """A format without nulls, which say nothing."""
    if not isinstance(asked, dict):
        return asked
    return {name: value for name, value in asked.items() if value is not None}


def _read_reasoning(fields: Fields) -> tuple[str | None, list[str]]:
    given = read_kind(fields, "reasoning", dict) or {}
    refuse_unknown("reasoning", given, OF_REASONING)
    noted = [
        f"reasoning.{name}"
        for name in ("summary", "generate_summary")
        if given.get(name) is not None
    ]
    try:
        return read_effort({"reasoning_effort": given.get("effort")}), noted
    except BodyError as error:
        why = str(error).replace("reasoning_effort", "reasoning.effort")
        raise BodyError(why, "reasoning.effort") from None


def _read_logprobs(fields: Fields) -> tuple[object, list[str]]:
    """How many others of each token, None for no log-probabilities."""
    include = read_kind(fields, "include", list) or []
    for i, each in enumerate(include):
        if not isinstance(each, str):
            place = f"include[{i}]"
            raise BodyError(f"{place}: expected a string, found {kind_of(each)}", place)
    noted = ["include"] if any(each != _LOGPROBS for each in include) else []
    most = read_kind(fields, "top_logprobs", int) or 0
    return (most if _LOGPROBS in include or most != 0 else None), noted


def _read_stream(fields: Fields) -> tuple[Streaming, list[str]]:
    wanted = read_flag(fields, "stream")
    options = read_kind(fields, "stream_options", dict) or {}
    refuse_unknown("stream_options", options, OF_STREAM_OPTIONS)
    place = "stream_options.include_cache"
    cache = read_kind(options, "include_cache", bool, place) is True
    name = "include_obfuscation"
    noted = [f"stream_options.{name}"] if options.get(name) is not None else []
    return Streaming(wanted, include_cache=cache), noted


def _check_truncation(fields: Fields) -> None:
    if fields.get("truncation") not in (None, "disabled"):
        raise BodyError("truncation: a prompt is never cut: leave it out", "truncation")


def _check_depth(name: str, value: object) -> None:
    """What is told back has to be written again."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > _DEEPEST:
            raise BodyError(f"{name}: more than {_DEEPEST} levels of lists and objects", name)
        level = [inner for each in level for inner in _inner(each)]


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
