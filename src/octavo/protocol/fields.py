"""The fields of a request body as a table: what each is, and what is done with it.

A field is *honoured* (it does what the API says), *noted* (it changes no answer, and the caller is
told so) or *refused* by name, unless its value asks for nothing. A route has one table; the reader
(`bodies.py`), the OpenAPI document and docs/api.md are made from it. Knows no values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from octavo.options import Option, options_of
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

Rule = Literal["honoured", "noted", "refused"]


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    rule: Rule
    help: str = ""  # a sentence without its full stop
    kinds: tuple[type, ...] = ()  # of its value in JSON; () where its own reader says
    off: tuple[object, ...] = ()  # of a refused one: values that ask for nothing
    option: Option | None = None  # whose range and help it has


Table = Mapping[str, Field]


def honoured(name: str, help: str, *kinds: type) -> Field:
    return Field(name, "honoured", help, kinds)


def whole(name: str, help: str, low: int, high: int) -> Field:
    """A whole number in a range of the route's own."""
    rule = Option(help, low, high, False, (), None, None, False, name=name, kind=int)
    return Field(name, "honoured", help, option=rule)


def noted(*names: str) -> tuple[Field, ...]:
    """Labels and hints, which no answer depends on."""
    return tuple(Field(name, "noted") for name in names)


def refused(name: str, *off: object) -> Field:
    return Field(name, "refused", off=off)


def of_options(owner: type, names: Iterable[str]) -> tuple[Field, ...]:
    """Fields that are options of the same name, in the options' own ranges but for _IN_BODIES."""
    by_name = {each.name: each for each in options_of(owner)}
    options = (replace(by_name[name], **_IN_BODIES.get(name, {})) for name in names)
    return tuple(Field(each.name, "honoured", each.help, option=each) for each in options)


def as_option(name: str, help: str, owner: type, option: str) -> Field:
    """A field with the range of an option that is called otherwise, or means less."""
    (found,) = (each for each in options_of(owner) if each.name == option)
    return Field(name, "honoured", help, option=found)


def table(*fields: Field) -> Table:
    """A route's fields, and of UNSUPPORTED those that it does not honour."""
    own = {field.name: field for field in fields}
    assert len(own) == len(fields), "a field stands twice"
    return MappingProxyType({**{field.name: field for field in UNSUPPORTED}, **own})


# What bodies say in another range than the options, as `sampling.py` reads them.
_IN_BODIES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "top_k": {"help": "Draw from this many likeliest tokens; 0 and -1 = all", "low": -1},
        "seed": {"help": "Makes the draw repeatable", "low": -(2**63)},
        "n": {"help": "Draw this many answers; with beams give as many", "high": 16},
    }
)

# Each route has its own names for these.
_OF_ROUTE = ("max_tokens", "logprobs", "prompt_logprobs")
SAMPLING = tuple(o.name for o in options_of(SamplingParams) if o.name not in _OF_ROUTE)
OPTIONS = ("priority", "deadline_ms", "cache_salt")

# What chat and completions share: OpenAI's names, beside them vLLM's and Octavo's own.
GENERATION = (
    honoured("model", "The name of the model; without it, the one that is loaded", str),
    honoured("stream", "Give the answer in pieces, as server-sent events", bool),
    honoured("stream_options", "include_usage, include_cache: a last piece with them", dict),
    honoured("return_progress", "Pieces that say how far the prompt is", bool),
    honoured("use_beam_search", "Search with as many beams as beam_width, best_of or n says", bool),
    *of_options(SamplingParams, SAMPLING),
    *of_options(RequestOptions, OPTIONS),
    honoured("response_format", "What the answer has to be: text, json_object, json_schema", dict),
    honoured("structured_outputs", "The same as vLLM has it: json, regex, choice, grammar", dict),
    honoured("guided_json", "A JSON schema of the answer"),
    honoured("guided_regex", "A regular expression that matches the answer", str),
    honoured("guided_choice", "Texts of which the answer is one", list),
    honoured("guided_grammar", "A Lark grammar of the answer", str),
    honoured(
        "session",
        "The id of the session that this goes on: the rest is what is new, and without a token "
        "drawn the session stays as it was",
        str,
    ),
    honoured("prompt_cache_key", "A label by which cache hits can be looked at", str),
    *noted("user", "safety_identifier", "metadata", "service_tier", "store", "verbosity"),
    *noted("prompt_cache_retention", "prompt_cache_options", "include", "client_metadata"),
)

# Known to OpenAI or vLLM; a route that can do one of them says so in its own table.
UNSUPPORTED = (
    refused("add_generation_prompt", True),
    refused("allowed_token_ids", []),
    refused("audio"),
    refused("background", False),
    refused("bad_words", []),
    refused("best_of"),
    refused("chat_template"),
    refused("chat_template_kwargs", {}),
    refused("continue_final_message", False),
    refused("conversation"),
    refused("function_call", "none"),
    refused("functions", []),
    refused("include_stop_str_in_output", False),
    refused("min_tokens", 0),
    refused("modalities", ["text"]),
    refused("moderation"),
    refused("parallel_tool_calls"),
    refused("prediction"),
    refused("prompt_logprobs"),
    refused("reasoning_effort"),
    refused("skip_special_tokens", True),
    refused("suffix", ""),
    refused("text", {}, {"format": {"type": "text"}}),
    refused("tool_choice", "none"),
    refused("tools", []),
    refused("truncate_prompt_tokens"),
    refused("web_search_options"),
)
