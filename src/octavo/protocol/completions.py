"""/v1/completions: the body in, the response out. A body may hold several prompts.

`echo` puts the prompt before each text; with `logprobs` it needs those of the prompt too, so the
request then asks for `prompt_logprobs`. With both, `max_tokens` may be 0: that scores the prompt.
Without `max_tokens` an answer has 16 tokens, as OpenAI says.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag
from octavo.protocol.common import FINISH_REASONS, Vocabulary, finite, usage_of
from octavo.protocol.fields import GENERATION, honoured, table
from octavo.protocol.sampling import (
    Streaming,
    read_model,
    read_options,
    read_params,
    read_streaming,
)
from octavo.request import Completion, RequestOptions, RequestOutput, TokenLogprobs
from octavo.sampling_params import SamplingParams
from octavo.values import is_whole

COMPLETION_FIELDS = table(
    honoured("prompt", "A text, token ids, or a list of either"),
    honoured("max_tokens", "Most tokens of an answer; default 16; 0 computes the prompt alone"),
    honoured("logprobs", "Log-probabilities of each token and this many others"),
    honoured("echo", "Begin each text with its prompt", bool),
    honoured("best_of", "Draw so many and give the n likeliest"),
    *GENERATION,
)
_MAX_TOKENS = 16
_MOST_DRAWN = 64  # of one prompt, as `n`

TextOrIds = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    model: str | None
    prompts: tuple[TextOrIds, ...]
    echo: bool = False
    num_given: int | None = None  # of more answers that are drawn; None: all
    hides_logprobs: bool = False  # they were only asked for to find the likeliest
    params: SamplingParams = field(default_factory=SamplingParams)
    options: RequestOptions = field(default_factory=RequestOptions)
    stream: Streaming = field(default_factory=Streaming)
    noted: tuple[str, ...] = ()  # fields that were given and change no answer


def parse_completion(body: object) -> CompletionRequest:
    """Raises BodyError, which names the field."""
    read = read_body(body, COMPLETION_FIELDS)
    fields = read.fields
    best_of = _read_best_of(fields)
    echo, logprobs = read_flag(fields, "echo"), fields.get("logprobs")
    if fields.get("max_tokens") == 0 and not (echo and logprobs is not None):
        raise BodyError("max_tokens=0: needs echo and logprobs: it scores the prompt", "max_tokens")
    own = {
        "max_tokens": fields.get("max_tokens", _MAX_TOKENS),
        "logprobs": 0 if best_of is not None and logprobs is None else logprobs,
        "prompt_logprobs": logprobs if echo else None,
    }
    params = read_params(fields, own, {"prompt_logprobs": "logprobs"})
    return CompletionRequest(
        model=read_model(fields),
        prompts=_read_prompts(fields.get("prompt")),
        echo=echo,
        params=params if best_of is None else replace(params, n=best_of),
        num_given=None if best_of is None else params.n,
        hides_logprobs=logprobs is None and best_of is not None,
        options=read_options(fields),
        stream=read_streaming(fields),
        noted=read.noted,
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
        for completion in _best(request, output):
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
    text = completion.text
    tokens = None if request.hides_logprobs else completion.logprobs
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


def _read_best_of(fields: Fields) -> int | None:
    """Return how many answers are drawn for the n that are given; None: as many. With beams it is
    vLLM's name of their number."""
    best_of, n = fields.get("best_of"), fields.get("n", 1)
    if best_of is None or best_of == n or read_flag(fields, "use_beam_search"):
        return None
    if not is_whole(best_of) or not is_whole(n) or not n <= best_of <= _MOST_DRAWN:
        why = f"expected a whole number from n={n} to {_MOST_DRAWN}"
        raise BodyError(f"best_of={best_of!r}: {why}", "best_of")
    if read_flag(fields, "stream"):
        raise BodyError("best_of: the best are known at the end: leave out stream", "best_of")
    return best_of


def _best(request: CompletionRequest, output: RequestOutput) -> Sequence[Completion]:
    """The answers that are given: of more that were drawn, those of highest mean log-probability,
    best first."""
    if request.num_given is None:
        return output.outputs
    ranked = sorted(output.outputs, key=_mean_logprob, reverse=True)
    return ranked[: request.num_given]


def _mean_logprob(completion: Completion) -> float:
    logprobs = [token.logprob for token in completion.logprobs or ()]
    return sum(logprobs) / len(logprobs) if logprobs else -math.inf


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
