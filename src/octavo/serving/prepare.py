"""RequestPreparer: prompts, messages and parameters become requests that the engine may take.

Comes in: what a caller gave. Goes out: plain token ids of the vocabulary, at least one and at most
the context, with parameters in which the model's own recommendations are filled in. Raises
UsageError for what is wrong, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from octavo.errors import PromptTooLongError, UsageError, counted
from octavo.grammar import Grammars, Vocabulary
from octavo.loaded_model import LoadedModel
from octavo.request import Pooling, RequestOptions, RowValues
from octavo.sampling_params import SamplingParams
from octavo.tokenizer import Tokenizer, TooManyTokensError
from octavo.tokenizer.chat import ChatEnd
from octavo.tokenizer.spec import TokenType
from octavo.values import is_list, is_whole

Prompt = str | Sequence[int]
Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
T = TypeVar("T")

_PROMPT = "a prompt is a string or a list of token ids"


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A prompt that was checked, and what is wanted of it."""

    tokens: Sequence[int]
    params: SamplingParams
    options: RequestOptions
    every_row: RowValues | None = None  # what is wanted of each token of the prompt


class RequestPreparer:
    def __init__(self, model: LoadedModel) -> None:
        self._config = model.config
        self._info = model.info
        self._may_be_longer = model.model_config.slopes is not None
        self._tokenizer = model.tokenizer
        self._vocab_size = model.program.vocab_size
        self.grammars = Grammars(partial(_vocabulary, model.tokenizer))

    def batch(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
        options: RequestOptions | Sequence[RequestOptions] | None,
    ) -> list[PreparedRequest]:
        """Prepare every prompt, with the same parameters or one each."""
        given = _as_prompts(prompts)
        each = _one_each("params", params, SamplingParams, len(given))
        opts = _one_each("options", options, RequestOptions, len(given))
        return [self.one(*request) for request in zip(given, each, opts, strict=True)]

    def one(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        options: RequestOptions | None = None,
        *,
        streams: bool = False,
    ) -> PreparedRequest:
        """Prepare a prompt; `streams`: its answer is to be given in pieces."""
        (checked,) = _one_each("params", params, SamplingParams, 1)
        (opts,) = _one_each("options", options, RequestOptions, 1)
        drawn = checked != SamplingParams() or opts.constraint is not None
        if opts.pooling is not None and drawn:
            raise UsageError(
                "pooling: an embedding is not drawn, leave SamplingParams and constraint out"
            )
        for name in ("stop_token_ids", "logit_bias"):
            unknown = [t for t in getattr(checked, name) or () if t >= self._vocab_size]
            if unknown:
                most = self._vocab_size - 1
                raise UsageError(f"{name} has {unknown[0]}: expected 0 to {most}")
        request = PreparedRequest(self.encode(prompt), checked.filled(self._info.sampling), opts)
        self._check_constraint(checked, opts)
        if streams and checked.beam_width:
            raise UsageError("beam_width: beams cannot be streamed; use generate")
        return request

    def encode(self, prompt: Prompt, *, parse_special: bool = False) -> list[int]:
        """Return the token ids of a prompt. Special tokens in a text are text, unless
        `parse_special`."""
        if isinstance(prompt, str):
            encode = partial(self._tokenizer.encode, prompt, parse_special=parse_special)
            return self._check_tokens(self._encode(encode))
        return self._check_tokens(prompt)

    def encode_chat(
        self,
        messages: Messages,
        *,
        chat_template: str | None,
        parse_special: bool,
        tools: Tools | None,
        template_args: Mapping[str, Any] | None,
        end: ChatEnd,
    ) -> list[int]:
        """Return the token ids of a conversation, up to where `end` says."""
        own = self._tokenizer.spec.template_for(tools=bool(tools))
        if chat_template is None and own is None:
            raise UsageError(
                f"{self._info.path.name} has no chat template: octavo run (generate) continues a "
                "plain prompt; or give one with --chat-template FILE (chat_template=)"
            )
        encode = partial(
            self._tokenizer.encode_chat,
            messages,
            chat_template=chat_template,
            parse_special=parse_special,
            tools=tools,
            template_args=template_args,
            end=end,
        )
        return self._encode(encode)

    def token_ids(self, method: str, token_ids: Sequence[int]) -> list[int]:
        """Check what `method` of LLM takes no text for."""
        if not _is_list(token_ids):
            raise UsageError(
                f"{method} takes a list of token ids, found {type(token_ids).__name__}: "
                "encode(text) gives the ids of a text"
            )
        return self._check_tokens(token_ids)

    def _check_constraint(self, params: SamplingParams, options: RequestOptions) -> None:
        if options.constraint is None:
            return
        for name in ("beam_width", "ignore_eos"):
            if value := getattr(params, name):
                raise UsageError(f"{name}={value}: cannot be combined with a constraint")
        if options.constraint.vocabulary is not self.grammars.vocabulary:
            raise UsageError("constraint: made for another model; make it with this one's grammar")

    def _check_tokens(self, tokens: Sequence[int]) -> list[int]:
        if not _is_list(tokens):
            raise UsageError(f"{_PROMPT}, found {type(tokens).__name__}")
        if len(tokens) > self._info.context:
            raise self._too_long(f"{len(tokens):,}")
        vocab = self._vocab_size
        wrong = [t for t in tokens if not (_is_id(t) and 0 <= t < vocab)]
        if wrong:
            raise UsageError(
                f"token id {wrong[0]!r}: expected a whole number from 0 to {vocab - 1}"
            )
        checked = [int(t) for t in tokens]
        if not checked:
            raise UsageError("the prompt is empty: give at least one token")
        return checked

    def _encode(self, encode: Callable[..., list[int]]) -> list[int]:
        """Refuse what is much too long before all of it is encoded."""
        try:
            return encode(limit=self._info.context)
        except TooManyTokensError as error:
            raise self._too_long(f"at least {error.count:,}") from None

    def _too_long(self, count: str) -> PromptTooLongError:
        return PromptTooLongError(
            f"the prompt has {count} tokens, the context holds {self._info.context:,}: "
            f"{self._room_for_more()}"
        )

    def _room_for_more(self) -> str:
        if self._info.context == self._info.model_context and not self._may_be_longer:
            return "shorten it, the model was trained for no more"
        if self._config.context is None and self._info.context < self._info.model_context:
            return "shorten it or raise kv_memory, which bounds the context"
        return "shorten it or load with a larger context"


def of_a_turn(options: RequestOptions | None) -> RequestOptions:
    """Say that the answer begins a turn of a conversation."""
    (checked,) = _one_each("options", options, RequestOptions, 1)
    return replace(checked, begins_turn=True)


def to_embed(options: RequestOptions | None, pooling: Pooling) -> RequestOptions:
    """Ask for an embedding. Raises UsageError for another word than "last" and "mean"."""
    (checked,) = _one_each("options", options, RequestOptions, 1)
    if pooling is None:
        raise UsageError("pooling: expected one of last, mean, found None")
    return replace(checked, pooling=pooling)


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    spec = tokenizer.spec
    unreadable = (i for i, kind in enumerate(spec.types) if kind == TokenType.UNKNOWN)
    return Vocabulary(
        [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)],
        hidden={*spec.control_ids, *unreadable},
        ends=tokenizer.eos_ids,
        encode=partial(tokenizer.encode, add_special=False),
    )


def _as_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A single prompt is a string or a list of ids; anything else is a list of prompts."""
    if isinstance(prompts, str):
        return [prompts]
    if not _is_list(prompts):
        raise UsageError(f"{_PROMPT}, or a list of those, found {type(prompts).__name__}")
    if len(prompts) and not any(isinstance(p, str) or _is_list(p) for p in prompts):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


def _one_each(what: str, given: Any, kind: type[T], count: int) -> list[T]:
    """Return one of `kind` each; `given` is one for all (None: the default), or a list."""
    if given is None or isinstance(given, kind):
        return [kind() if given is None else given] * count
    for each in given if _is_list(given) else (given,):
        if not isinstance(each, kind):
            raise UsageError(f"{what}: expected {kind.__name__}, found {type(each).__name__}")
    if len(given) != count:
        raise UsageError(
            f"{len(given):,} {what} for {counted(count, 'prompt')}: give one, or one each"
        )
    return list(given)


def _is_list(value: object) -> bool:
    return value.ndim > 0 if isinstance(value, np.ndarray) else is_list(value)


def _is_id(value: object) -> bool:
    return isinstance(value, np.integer) or is_whole(value)
