"""/v1/chat/completions: the body in. What goes out is `chat_answer`'s.

Messages are read by `chat_messages`, tools by `tools.asked`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.errors import kind_of
from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag, read_kind, read_text
from octavo.protocol.chat_messages import read_chat_messages
from octavo.protocol.fields import GENERATION, as_option, honoured, table
from octavo.protocol.rules import Switch, check_rules, said, so
from octavo.protocol.sampling import (
    BY_BEAMS,
    STREAMS,
    Streaming,
    beams,
    read_cache_key,
    read_model,
    read_options,
    read_params,
    read_streaming,
    sessions,
)
from octavo.protocol.structured import ASKED, read_structured
from octavo.protocol.tools.asked import NEEDS_TOOLS, Tools, read_tools
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.tokenizer.chat import ChatEnd

# Where the prompt ends, as vLLM says it.
ENDS = (
    honoured("add_generation_prompt", "Begin an answer behind the messages; default true", bool),
    honoured("continue_final_message", "Go on with the last message, the assistant's", bool),
)
CHAT_FIELDS = table(
    honoured("messages", "The conversation so far", list),
    as_option(
        "max_completion_tokens",
        "Most tokens of an answer; default: up to the context, or N of one that slides; 0 computes "
        "the prompt alone",
        SamplingParams,
        "max_tokens",
    ),
    as_option("max_tokens", "The old name of it", SamplingParams, "max_tokens"),
    honoured("logprobs", "Give log-probabilities of each token", bool),
    as_option("top_logprobs", "And of this many others", SamplingParams, "logprobs"),
    honoured("tools", "Functions that the model may call", list),
    honoured("tool_choice", "none, auto, required, or one function", str, dict),
    honoured("parallel_tool_calls", "Whether one answer may call several", bool),
    honoured("reasoning_effort", "How much to reason, where the chat template has a switch", str),
    honoured("chat_template_kwargs", "Variables for the chat template: scalars", dict),
    *ENDS,
    *GENERATION,
)
_CONTINUE = "continue_final_message"
END_RULES = (
    Switch(
        (said(_CONTINUE, False),), never=(said("add_generation_prompt", False),),
        why=f"{_CONTINUE} and add_generation_prompt cannot both be true",
    ),
)  # fmt: skip
# What its reader checks. Those who know what the fields hold refuse what the others say.
_CHECKED = (
    STREAMS,
    Switch(
        (said("logprobs", False, text="`logprobs: true`"),), "logprobs: true",
        only=(said("top_logprobs", 0),),
    ),
    Switch(
        (said("max_completion_tokens"),), never=(said("max_tokens"),),
        why="max_tokens is the old name of max_completion_tokens: give one of them",
    ),
    *END_RULES,
)  # fmt: skip
CHAT_RULES = (
    *_CHECKED[:2],
    beams(
        said("logprobs", False), so("max_tokens", 0), so("max_completion_tokens", 0),
        *NEEDS_TOOLS.only, *ASKED,
    ),
    *_CHECKED[2:],
    NEEDS_TOOLS,
    sessions(said("n", 1), *BY_BEAMS, said(_CONTINUE, False), said("add_generation_prompt", True)),
)  # fmt: skip
TEMPLATE_OWN = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str | None
    messages: tuple[dict[str, Any], ...]
    tools: Tools | None = None
    effort: str | None = None  # of reasoning
    effort_fields: tuple[str, ...] = ("reasoning_effort",)  # that ask for it
    template_args: Mapping[str, object] = field(default_factory=dict)
    end: ChatEnd = "answer"  # of the prompt
    grammar: GrammarSpec | None = None  # that the answer is held to
    grammar_field: str = "response_format"  # that says so
    params: SamplingParams = field(default_factory=SamplingParams)
    options: RequestOptions = field(default_factory=lambda: RequestOptions(begins_turn=True))
    stream: Streaming = field(default_factory=Streaming)
    session: str | None = None  # that these messages go on
    cache_key: str | None = None  # a label of the request
    noted: tuple[str, ...] = ()  # fields that were given and change no answer


def parse_chat(body: object) -> ChatRequest:
    """Raises BodyError, which names the field."""
    read = read_body(body, CHAT_FIELDS)
    fields = read.fields
    check_rules(fields, _CHECKED)
    limit = "max_tokens" if "max_tokens" in fields else "max_completion_tokens"
    own = {"max_tokens": fields.get(limit), "logprobs": _read_logprobs(fields)}
    spelling = {"max_tokens": limit, "logprobs": "top_logprobs"}
    stream = read_streaming(fields)
    messages = read_chat_messages(fields.get("messages"))
    end = read_end(fields, messages)
    structured = read_structured(fields)
    return ChatRequest(
        model=read_model(fields),
        messages=messages,
        end=end,
        tools=read_tools(fields),
        effort=read_effort(fields),
        template_args=read_template_args(fields),
        grammar=structured.spec,
        grammar_field=structured.field,
        params=read_params(fields, own, spelling),
        options=replace(read_options(fields), begins_turn=end != "open"),
        stream=stream,
        session=read_text(fields, "session"),
        cache_key=read_cache_key(fields),
        noted=(*read.noted, *stream.noted),
    )


def read_end(fields: Fields, messages: Sequence[Mapping[str, Any]]) -> ChatEnd:
    """Where a prompt of these messages ends."""
    begins = read_kind(fields, "add_generation_prompt", bool)
    goes_on = read_flag(fields, _CONTINUE)
    if "session" in fields and (goes_on or begins is False):
        name = _CONTINUE if goes_on else "add_generation_prompt"
        raise BodyError(f"{name}: each turn of a session begins an answer: leave it out", name)
    if not goes_on:
        return "closed" if begins is False else "answer"
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls"):
        raise BodyError(
            f"{_CONTINUE}: expected a last message of the assistant that calls no tools", _CONTINUE
        )
    return "open"


def read_effort(fields: Fields) -> str | None:
    effort = read_text(fields, "reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        expected = ", ".join(EFFORTS)
        why = f"reasoning_effort={effort!r}: expected one of {expected}"
        raise BodyError(why, "reasoning_effort")
    return effort


def read_template_args(fields: Fields) -> dict[str, object]:
    """Variables of the template: scalars alone, and none that we give it."""
    found = read_kind(fields, "chat_template_kwargs", dict) or {}
    for name, value in found.items():
        place = f"chat_template_kwargs.{name}"
        if name in TEMPLATE_OWN:
            raise BodyError(f"{place} has a field of its own", place)
        if isinstance(value, dict | list):
            raise BodyError(f"{place}: expected a scalar, found {kind_of(value)}", place)
    return {name: value for name, value in found.items() if value is not None}


def _read_logprobs(fields: Fields) -> object:
    return fields.get("top_logprobs", 0) if read_flag(fields, "logprobs") else None
