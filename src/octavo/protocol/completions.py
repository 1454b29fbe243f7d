"""/v1/completions: the body in, which may hold several prompts. What goes out is
`completion_answer`'s.

`echo` puts the prompt before each text; with `logprobs` it needs those of the prompt too, so the
request then asks for `prompt_logprobs`. With both, `max_tokens` 0 scores the prompt.
Without `max_tokens` an answer has 16 tokens, as OpenAI says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag, read_text
from octavo.protocol.fields import GENERATION, as_option, honoured, table
from octavo.protocol.prompts import TextOrIds, read_prompts
from octavo.protocol.rules import check_rules, said, so
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
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.values import is_whole

COMPLETION_FIELDS = table(
    honoured("prompt", "A text, token ids, or a list of either"),
    as_option(
        "max_tokens",
        "Most tokens of an answer; default 16; 0 computes the prompt alone",
        SamplingParams,
        "max_tokens",
    ),
    as_option(
        "logprobs",
        "Log-probabilities of each token and this many others",
        SamplingParams,
        "logprobs",
    ),
    honoured("echo", "Begin each text with its prompt", bool),
    as_option("best_of", "Draw so many and give the n likeliest", SamplingParams, "n"),
    *GENERATION,
)
_CHECKED = (STREAMS,)
COMPLETION_RULES = (
    *_CHECKED,
    beams(said("logprobs"), so("max_tokens", 0), *ASKED),
    sessions(said("n", 1), said("best_of", 1), *BY_BEAMS, said("echo", False)),
)
_MAX_TOKENS = 16
_MOST_DRAWN = 64  # of one prompt, as `n`


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
    grammar: GrammarSpec | None = None  # that the answers are held to
    grammar_field: str = "response_format"  # that says so
    session: str | None = None  # that the prompt goes on
    cache_key: str | None = None  # a label of the request
    noted: tuple[str, ...] = ()  # fields that were given and change no answer


def parse_completion(body: object) -> CompletionRequest:
    """Raises BodyError, which names the field."""
    read = read_body(body, COMPLETION_FIELDS)
    fields = read.fields
    check_rules(fields, _CHECKED)
    best_of = _read_best_of(fields)
    echo, logprobs = read_flag(fields, "echo"), fields.get("logprobs")
    own = {
        "max_tokens": fields.get("max_tokens", _MAX_TOKENS),
        "logprobs": 0 if best_of is not None and logprobs is None else logprobs,
        "prompt_logprobs": logprobs if echo else None,
    }
    params = read_params(fields, own, {"prompt_logprobs": "logprobs"})
    stream = read_streaming(fields)
    structured = read_structured(fields)
    if stream.wanted and params.prompt_logprobs is not None:
        raise BodyError("echo with logprobs is given whole: leave out stream", "echo")
    return CompletionRequest(
        model=read_model(fields),
        prompts=read_prompts(fields.get("prompt"), "prompt"),
        echo=echo,
        params=params if best_of is None else replace(params, n=best_of),
        num_given=None if best_of is None else params.n,
        hides_logprobs=logprobs is None and best_of is not None,
        options=read_options(fields),
        session=read_text(fields, "session"),
        stream=stream,
        grammar=structured.spec,
        grammar_field=structured.field,
        cache_key=read_cache_key(fields),
        noted=(*read.noted, *stream.noted),
    )


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
