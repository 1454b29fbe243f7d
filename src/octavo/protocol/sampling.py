"""The fields that all routes share: SamplingParams and RequestOptions out of a body.

OpenAI's names and, beside them, vLLM's (`top_k`, `min_p`, `repetition_penalty`, `ignore_eos`,
`stop_token_ids`, `use_beam_search`, `length_penalty`, `priority`, `cache_salt`) and Octavo's own
(`beam_width`, `early_stopping`, `deadline_ms`). Three values are read as those APIs mean them:
`top_k` -1 is all, a negative `seed` is the same 64 bits unsigned, and `use_beam_search` searches as
many beams as `beam_width`, else `best_of`, else `n` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from octavo.errors import PromptTooLongError, UsageError
from octavo.options import parse_options
from octavo.protocol.bodies import (
    BodyError,
    Fields,
    read_flag,
    read_kind,
    read_text,
    refuse_unknown,
)
from octavo.protocol.common import cache_of, ended_by, usage_of
from octavo.protocol.fields import OPTIONS, SAMPLING
from octavo.protocol.rules import Said, Switch, said
from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import NOT_WITH_BEAMS, SamplingParams
from octavo.values import is_whole

_MOST_ANSWERS = 16
MOST_STOPS = 16
LONGEST_STOP = 256  # characters
LONGEST_KEY = 256  # characters
_NAMED = re.compile(r"([a-z_]+)(?==| has )")
OF_STREAM_OPTIONS = ("include_usage", "include_cache", "include_obfuscation")
STREAMS = Switch(
    (said("stream", False, text="`stream: true`"),), "stream: true",
    only=(said("stream_options", {}), said("return_progress", False)),
)  # fmt: skip
BY_BEAMS = (said("beam_width"), said("use_beam_search", False))
# What beams are not asked with, but for these values. SamplingParams refuses it.
_AS_BEAMS_HAVE_IT: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        **{"temperature": (0,), "top_k": (0, -1), "top_p": (1,), "min_p": (0,)},
        **{"repetition_penalty": (1,), "presence_penalty": (0,), "frequency_penalty": (0,)},
        **{"logit_bias": ({},), "stop": ([],)},
    }
)
_OF_ROUTE = ("logprobs", "prompt_logprobs")  # each has its own names for these


Usage = Callable[[Sequence[RequestOutput]], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Streaming:
    """Whether the answer is wanted in pieces, and what of a last one with figures."""

    wanted: bool = False
    include_usage: bool = False
    include_cache: bool = False
    progress: bool = False  # pieces that say how far the prompt is
    noted: tuple[str, ...] = ()

    def figures(
        self, outputs: Sequence[RequestOutput], usage: Usage = usage_of
    ) -> dict[str, object]:
        """What the last piece tells; nothing: there is none. `usage` is the route's."""
        found: dict[str, object] = {}
        if self.include_usage:
            found["usage"] = usage(outputs)
        if self.include_cache:
            found |= {"cache": cache_of(outputs), **ended_by(outputs)}
        return found


def beams(*never: Said) -> Switch:
    """Say what beams have for themselves and what they cannot have; `never` are the route's own."""
    shaping = [name for name in ("temperature", *NOT_WITH_BEAMS) if name not in _OF_ROUTE]
    return Switch(
        BY_BEAMS,
        only=(said("length_penalty", 1), said("early_stopping", False)),
        never=(
            *STREAMS.by,
            *(said(name, *_AS_BEAMS_HAVE_IT.get(name, ())) for name in shaping),
            *never,
        ),
    )


def sessions(*never: Said) -> Switch:
    """Say what a turn of a session cannot have; `never` are the route's own."""
    return Switch((said("session"),), never=(said("cache_salt", ""), *never))


def read_params(
    fields: Fields, own: Mapping[str, object], spelling: Mapping[str, str]
) -> SamplingParams:
    """`own` are the route's values by SamplingParams' names; `spelling` is how the body calls
    them."""
    asked = {name: fields[name] for name in SAMPLING if name in fields}
    asked |= {name: value for name, value in own.items() if value is not None}
    if asked.get("top_k") == -1:
        asked["top_k"] = 0
    seed = asked.get("seed")
    if isinstance(seed, int) and -(2**63) <= seed < 0:
        asked["seed"] = seed + 2**64
    _check_stop(asked.get("stop"), spelling.get("stop", "stop"))
    n = asked.get("n", 1)
    if is_whole(n) and not 1 <= n <= _MOST_ANSWERS:
        raise BodyError(f"n={n}: expected a whole number from 1 to {_MOST_ANSWERS}", "n")
    if read_flag(fields, "use_beam_search"):
        asked.setdefault("beam_width", fields.get("best_of", asked.get("n", 1)))
    with named_as(spelling):
        return SamplingParams.parse(asked)


def read_options(fields: Fields) -> RequestOptions:
    with named_as({}):
        asked = {name: fields[name] for name in OPTIONS if name in fields}
        return parse_options(RequestOptions, "option", asked)


def read_streaming(fields: Fields) -> Streaming:
    wanted = read_flag(fields, "stream")
    options = read_kind(fields, "stream_options", dict) or {}
    refuse_unknown("stream_options", options, OF_STREAM_OPTIONS)
    for name in OF_STREAM_OPTIONS:
        read_kind(options, name, bool, f"stream_options.{name}")
    return Streaming(
        wanted,
        options.get("include_usage") is True,
        options.get("include_cache") is True,
        read_flag(fields, "return_progress"),
        ("stream_options.include_obfuscation",) if options.get("include_obfuscation") else (),
    )


def read_model(fields: Fields) -> str | None:
    model = read_text(fields, "model")
    if model == "":
        raise BodyError("model: expected a name, found an empty string", "model")
    return model


def read_cache_key(fields: Fields) -> str | None:
    """The label that a request's record of the cache is found by."""
    key = read_text(fields, "prompt_cache_key")
    if key is not None and len(key) > LONGEST_KEY:
        why = f"{len(key):,} characters: at most {LONGEST_KEY}"
        raise BodyError(f"prompt_cache_key: {why}", "prompt_cache_key")
    return key


def _check_stop(stop: object, name: str) -> None:
    texts = stop if isinstance(stop, list) else [stop]
    if len(texts) > MOST_STOPS:
        raise BodyError(f"{name}: {len(texts)} texts: at most {MOST_STOPS}", name)
    if any(isinstance(text, str) and len(text) > LONGEST_STOP for text in texts):
        raise BodyError(f"{name}: a text of more than {LONGEST_STOP} characters", name)


@contextmanager
def named_as(spelling: Mapping[str, str]) -> Iterator[None]:
    """Errors of the forms `name=value: …` and `name has value: …` name the field of the body."""
    try:
        yield
    except PromptTooLongError:
        raise
    except UsageError as error:
        named = _NAMED.match(str(error))
        if named is None:
            raise BodyError(str(error)) from None
        own = spelling.get(named[1], named[1])
        raise BodyError(f"{own}{str(error)[named.end(1) :]}", own) from None
