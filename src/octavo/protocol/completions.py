"""/v1/completions: the body in, the response out. A body may hold several prompts.

`echo` puts the prompt before each text; with `logprobs` it needs those of the prompt too, so the
request then asks for `prompt_logprobs`. With both, `max_tokens` may be 0: that scores the prompt.
Without `max_tokens` an answer has 16 tokens, as OpenAI says.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, Fields, read_fields, read_flag
from octavo.protocol.responses import FINISH_REASONS, Vocabulary, finite, usage_of
from octavo.protocol.sampling import (
    SHARED_FIELDS,
    Streaming,
    read_model,
    read_options,
    read_params,
    read_streaming,
)
from octavo.request import Completion, RequestOptions, RequestOutput, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.values import is_whole

_FIELDS = ("prompt", "max_tokens", "logprobs", "echo", "best_of", *SHARED_FIELDS)
_MAX_TOKENS = 16

TextOrIds = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    model: str | None
    prompts: tuple[TextOrIds, ...]
    echo: bool = False
    params: SamplingParams = field(default_factory=SamplingParams)
    options: RequestOptions = field(default_factory=RequestOptions)
    stream: Streaming = field(default_factory=Streaming)


def parse_completion(body: object) -> CompletionRequest:
    """Raises BodyError, which names the field."""
    fields = read_fields(body, _FIELDS)
    _check_best_of(fields)
    echo, logprobs = read_flag(fields, "echo"), fields.get("logprobs")
    if fields.get("max_tokens") == 0 and not (echo and logprobs is not None):
        raise BodyError("max_tokens=0: needs echo and logprobs: it scores the prompt", "max_tokens")
    own = {
        "max_tokens": fields.get("max_tokens", _MAX_TOKENS),
        "logprobs": logprobs,
        "prompt_logprobs": logprobs if echo else None,
    }
    return CompletionRequest(
        model=read_model(fields),
        prompts=_read_prompts(fields.get("prompt")),
        echo=echo,
        params=read_params(fields, own, {"prompt_logprobs": "logprobs"}),
        options=read_options(fields),
        stream=read_streaming(fields),
    )


def completion_response(
    request: CompletionRequest,
    outputs: Sequence[RequestOutput],
    *,
    id: str,
    created: int,
    model: str,
    vocabulary: Vocabulary,
) -> dict[str, object]:
    """Write a response of one output a prompt, in order; choices count on from prompt to prompt."""
    choices: list[dict[str, object]] = []
    for prompt, output in zip(request.prompts, outputs, strict=True):
        for completion in output.outputs:
            choice = {
                "index": len(choices),
                **_choice(request, prompt, output, completion, vocabulary),
            }
            choices.append(choice)
    return {
        "id": id,
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage_of(outputs),
    }


def _choice(
    request: CompletionRequest,
    prompt: TextOrIds,
    output: RequestOutput,
    completion: Completion,
    vocabulary: Vocabulary,
) -> dict[str, object]:
    text, tokens = completion.text, completion.logprobs
    found: list[tuple[int, TokenLogprobs | None]] = []
    if request.echo:
        text = (prompt if isinstance(prompt, str) else vocabulary.decode(prompt)) + text
        found += zip(output.prompt_token_ids, output.prompt_logprobs or (), strict=False)
    found += [(token.token_id, token) for token in tokens or ()]
    return {
        "text": text,
        "logprobs": None if tokens is None else _logprobs(found, text, vocabulary),
        "finish_reason": FINISH_REASONS[completion.finish_reason],
    }


def _logprobs(
    tokens: Sequence[tuple[int, TokenLogprobs | None]], text: str, vocabulary: Vocabulary
) -> dict[str, object]:
    """Four lists of one entry a token; the first token of a prompt has no probability."""
    return {
        "tokens": [_name(token_id, vocabulary) for token_id, _ in tokens],
        "token_logprobs": [None if token is None else finite(token.logprob) for _, token in tokens],
        "top_logprobs": [None if token is None else _top(token, vocabulary) for _, token in tokens],
        "text_offset": _offsets([token_id for token_id, _ in tokens], text, vocabulary),
    }


def _top(token: TokenLogprobs, vocabulary: Vocabulary) -> dict[str, float]:
    """The likeliest, and always the token itself. Of tokens with one name the likeliest counts."""
    found: dict[str, float] = {}
    for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
        found.setdefault(_name(token_id, vocabulary), finite(logprob))
    return found


def _name(token_id: int, vocabulary: Vocabulary) -> str:
    r"""The token's text; a part of a character is written as OpenAI does: bytes:\xe2\x80."""
    data = vocabulary.token_bytes(token_id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _offsets(ids: Sequence[int], text: str, vocabulary: Vocabulary) -> list[int]:
    """(tokens,) where in `text` each begins. A control token takes no place in it, and what came
    after a stop string stands at its end."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, at = [], 0
    for token_id in ids:
        offsets.append(min(at, len(text)))
        shown = b"" if vocabulary.is_control(token_id) else vocabulary.token_bytes(token_id)
        if at == 0 and shown[:1] == b" " and not text.startswith(" "):
            shown = shown[1:]  # the blank that SPM puts before a text
        at += len(utf8.decode(shown))
    return offsets


def _check_best_of(fields: Fields) -> None:
    """vLLM's beams; a choice among drawn answers is not made here."""
    best_of = fields.get("best_of")
    if best_of is None or read_flag(fields, "use_beam_search"):
        return
    if best_of != fields.get("n", 1):
        raise BodyError(f"best_of={best_of!r}: needs use_beam_search, or to be n", "best_of")


def _read_prompts(prompt: object) -> tuple[TextOrIds, ...]:
    if isinstance(prompt, str):
        return (prompt,)
    if _is_ids(prompt):
        return (tuple(prompt),)  # type: ignore[arg-type]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(each, str) for each in prompt):
            return tuple(prompt)
        if all(_is_ids(each) for each in prompt):
            return tuple(tuple(each) for each in prompt)
    kind = "an empty list" if prompt == [] else kind_of(prompt)
    expected = "a string, a list of token ids, or a list of either"
    raise BodyError(f"prompt: expected {expected}, found {kind}", "prompt")


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_whole, value))
