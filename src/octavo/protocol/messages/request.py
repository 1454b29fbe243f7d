"""The bodies of /v1/messages and /v1/messages/count_tokens.

Goes out: the same ChatRequest that OpenAI's chat becomes, and beside it what only Messages has.
Both routes read a conversation by the same words, so that what one counts the other computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from octavo.errors import kind_of
from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import (
    Body,
    BodyError,
    Fields,
    read_body,
    read_flag,
    read_kind,
    refuse_unknown,
)
from octavo.protocol.chat import ChatRequest
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
from octavo.protocol.messages.blocks import Mark, Marks, read_conversation
from octavo.protocol.messages.tools import read_tools
from octavo.protocol.sampling import Streaming, read_model, read_options, read_params
from octavo.protocol.structured import Structured, read_format
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

# Those that change what an answer is, and not how many there are.
_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "ignore_eos"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "stop_token_ids"),
)
_CONVERSATION = (
    honoured("model", "The name of the model; without it, the one that is loaded", str),
    honoured("messages", "The conversation so far, of user, assistant and system", list),
    honoured("system", "What the model is told first: a text, or text blocks", str, list),
    honoured("tools", "Functions that the model may call", list),
    honoured("tool_choice", "auto, any, none, or one tool", dict),
    honoured("thinking", "enabled, disabled or adaptive, where the template has a switch", dict),
    honoured("output_config", "effort of thinking; format of the answer", dict),
    honoured("cache_control", "Marks the whole prompt to be kept in the cache", dict),
    *noted("metadata", "service_tier", "inference_geo", "speed", "context_management"),
    *noted("diagnostics", "user_profile_id", "workspace_id"),
    refused("container"),
    refused("mcp_servers", []),
    refused("output_format"),
    refused("billing_policy"),
    refused("compaction"),
    refused("fallbacks", []),
    refused("fallback_credit_token"),
    refused("thread"),
)
MESSAGES_FIELDS: Table = table(
    *_CONVERSATION,
    as_option(
        "max_tokens",
        "Most tokens of the answer; 0 computes the prompt alone",
        SamplingParams,
        "max_tokens",
    ),
    honoured("stop_sequences", "Texts that end the answer, which says which one did", list),
    honoured("stream", "Give the answer in pieces, as server-sent events", bool),
    *of_options(SamplingParams, _SAMPLING),
    *of_options(RequestOptions, OPTIONS),
)
COUNT_FIELDS: Table = table(*_CONVERSATION)

# As templates name them: none of them has a "max".
EFFORTS = MappingProxyType(
    {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}
)
_FORMAT = "output_config.format"
OF_OUTPUT_CONFIG = ("effort", "format")
# The fields of `thinking` by its type.
THINKING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "enabled": ("type", "budget_tokens", "display"),
        "disabled": ("type",),
        "adaptive": ("type", "display"),
    }
)
DISPLAYS = ("summarized", "omitted")
_DEFAULT_EFFORT = "high"  # the API's, of a model that thinks


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    chat: ChatRequest
    marks: tuple[Mark, ...] = ()  # up to where the prompt is to be kept
    shows_thinking: bool = True

    @property
    def noted(self) -> tuple[str, ...]:
        return self.chat.noted


@dataclass(frozen=True, slots=True)
class _Thinking:
    effort: str | None = None
    fields: tuple[str, ...] = ()  # that said so
    is_shown: bool = True
    noted: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        return "thinking" in self.fields and self.effort != "none"


def parse_messages(body: object) -> MessagesRequest:
    """Raises BodyError, which names the field."""
    read = read_body(body, MESSAGES_FIELDS)
    fields = read.fields
    if "max_tokens" not in fields:
        raise BodyError("max_tokens is missing: say how long the answer may be", "max_tokens")
    own = {"max_tokens": fields["max_tokens"], "stop": fields.get("stop_sequences")}
    request = _read_conversation(read)
    chat = replace(
        request.chat,
        params=read_params(fields, own, {"stop": "stop_sequences"}),
        options=replace(read_options(fields), begins_turn=request.chat.end != "open"),
        stream=Streaming(read_flag(fields, "stream")),
    )
    return replace(request, chat=chat)


def parse_count(body: object) -> MessagesRequest:
    """Read a request whose prompt is only counted. Raises BodyError."""
    return _read_conversation(read_body(body, COUNT_FIELDS))


def _read_conversation(read: Body) -> MessagesRequest:
    fields = read.fields
    marks = Marks()
    tools = read_tools(fields, marks)
    said = read_conversation(fields, marks)
    marks.take("", fields, said.messages)
    thinking = _read_thinking(fields)
    structured = _read_format(fields)
    if said.is_begun:
        _check_beginning(thinking, structured.spec)
    chat = ChatRequest(
        model=read_model(fields),
        messages=said.messages,
        end="open" if said.is_begun else "answer",
        tools=tools,
        effort=thinking.effort,
        effort_fields=thinking.fields,
        grammar=structured.spec,
        grammar_field=structured.field,
        noted=(*read.noted, *said.noted, *marks.noted, *thinking.noted),
    )
    return MessagesRequest(chat, marks.found, thinking.is_shown)


def _check_beginning(thinking: _Thinking, grammar: GrammarSpec | None) -> None:
    """What an answer that has begun is asked too late. Raises BodyError."""
    late = "thinking" if thinking.is_on else None if grammar is None else _FORMAT
    if late is not None:
        raise BodyError(
            f"{late}: the last message is the beginning of the answer: leave one of them out", late
        )


def _read_format(fields: Fields) -> Structured:
    given = (read_kind(fields, "output_config", dict) or {}).get("format")
    return Structured(None, _FORMAT) if given is None else read_format(given, _FORMAT)


def _read_thinking(fields: Fields) -> _Thinking:
    """What `thinking` and the effort of `output_config` say of it."""
    config = read_kind(fields, "output_config", dict) or {}
    refuse_unknown("output_config", config, OF_OUTPUT_CONFIG)
    effort = _one_of("output_config.effort", config.get("effort"), tuple(EFFORTS))
    thinking = read_kind(fields, "thinking", dict)
    own = () if effort is None else ("output_config.effort",)
    found = _Thinking(None if effort is None else EFFORTS[effort], own)
    if thinking is None:
        return found
    given = thinking.get("type")
    kind = _one_of("thinking.type", "" if given is None else given, tuple(THINKING))
    assert kind is not None, "it was given"
    refuse_unknown("thinking", thinking, THINKING[kind])
    if kind == "disabled":
        return _Thinking("none", ("thinking", *own))
    budget = read_kind(thinking, "budget_tokens", int, "thinking.budget_tokens")
    display = _one_of("thinking.display", thinking.get("display"), DISPLAYS)
    return replace(
        found,
        effort=found.effort or _DEFAULT_EFFORT,
        fields=("thinking", *own),
        is_shown=display != "omitted",
        noted=() if budget is None else ("thinking.budget_tokens",),
    )


def _one_of(where: str, value: object, known: Sequence[str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in known:
        found = repr(value) if isinstance(value, str) else kind_of(value)
        raise BodyError(f"{where}: expected one of {', '.join(known)}, found {found}", where)
    return value
