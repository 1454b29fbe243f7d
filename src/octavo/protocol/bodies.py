"""A request body, read strictly: every field is known, or the body is refused with its name.

Comes in: parsed JSON. Goes out: its fields, without nulls (null is "not given" to OpenAI) and
without those that change no answer:

* `user`, `safety_identifier`, `prompt_cache_key`, `metadata`: OpenAI defines them as labels for its
  own bookkeeping, so they are checked and dropped;
* the fields of `_NOT_SUPPORTED` with the value that asks for nothing, which many clients send.

Ranges are the business of SamplingParams and RequestOptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from octavo.errors import KINDS, UsageError, kind_of, unknown_option

Fields = Mapping[str, object]

_LABELS = MappingProxyType(
    {"user": str, "safety_identifier": str, "prompt_cache_key": str, "metadata": dict}
)

# Fields that OpenAI or vLLM know, and the values of them that ask for nothing.
_NOT_SUPPORTED: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "add_generation_prompt": (True,),
        "allowed_token_ids": ([],),
        "audio": (),
        "bad_words": ([],),
        "best_of": (),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "continue_final_message": (False,),
        "function_call": ("none",),
        "functions": ([],),
        "guided_choice": (),
        "guided_grammar": (),
        "guided_json": (),
        "guided_regex": (),
        "include_stop_str_in_output": (False,),
        "logit_bias": ({},),
        "min_tokens": (0,),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (),
        "prediction": (),
        "prompt_logprobs": (),
        "reasoning_effort": (),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "skip_special_tokens": (True,),
        "store": (False,),
        "structured_outputs": (),
        "suffix": ("",),
        "tool_choice": ("none",),
        "tools": ([],),
        "truncate_prompt_tokens": (),
        "verbosity": (),
        "web_search_options": (),
    }
)


class BodyError(UsageError):
    """A field is unknown, not supported, or has a wrong value; `param` is its name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def read_fields(body: object, known: Sequence[str]) -> dict[str, object]:
    """The fields of `body` that say something, all of them among `known`."""
    if not isinstance(body, dict):
        raise BodyError(f"the body: expected an object, found {kind_of(body)}")
    found = {}
    for name, value in body.items():
        if name in known:
            if value is not None:
                found[name] = value
        elif name in _LABELS:
            _check_kind(name, value, _LABELS[name])
        elif name in _NOT_SUPPORTED:
            _refuse_unless_off(name, value)
        else:
            raise BodyError(str(unknown_option("field", name, sorted({*known, *_LABELS}))), name)
    return found


def read_text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    _check_kind(name, value, str)
    return value  # type: ignore[return-value]  # checked


def read_flag(fields: Fields, name: str) -> bool:
    value = fields.get(name)
    _check_kind(name, value, bool)
    return value is True


def _check_kind(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise BodyError(f"{name}: expected {KINDS[kind]}, found {kind_of(value)}", name)


def _refuse_unless_off(name: str, value: object) -> None:
    off = _NOT_SUPPORTED[name]
    if value is None or any(type(value) is type(other) and value == other for other in off):
        return
    raise BodyError(f"{name} is not supported: leave it out", name)
