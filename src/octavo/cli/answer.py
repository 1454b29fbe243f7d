"""What `run` and `chat` share: flags that shape an answer, and the figures shown after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from octavo.cli.command import Flag
from octavo.cli.figures import number, size
from octavo.cli.screen import one_line
from octavo.errors import UsageError, counted
from octavo.given_text import decode, without_mark
from octavo.request import RequestOutput
from octavo.sampling_params import Sampling, SamplingParams
from octavo.weights.library import LIBRARY

if TYPE_CHECKING:
    from octavo.loaded_model import ModelInfo
    from octavo.serving.llm import LLM
    from octavo.tokenizer import Tokenizer

System = Annotated[str | None, Flag(help="A system message before the prompt.")]
Template = Annotated[
    Path | None, Flag(help="A Jinja chat template to use in place of the model's.")
]
Quiet = Annotated[
    bool, Flag("--quiet", help="Leave out the figures: memory at the start, speed after.")
]

_FALLBACK = Sampling(temperature=0.7, top_p=0.9)  # of a model whose makers say nothing
_TEMPLATE_BYTES = 2**20  # of a file; the templates of models have a hundredth


def read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    what = f"--chat-template {path}"
    try:
        with path.open("rb") as file:
            data = without_mark(what, file.read(_TEMPLATE_BYTES + 1))
    except IsADirectoryError:
        raise UsageError(f"{what} is a folder: give the file in it") from None
    except FileNotFoundError:
        raise UsageError(f"{what}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise UsageError(f"{what} is a binary file: a chat template is text")
    if len(data) > _TEMPLATE_BYTES:
        raise UsageError(f"{what} is larger than {size(_TEMPLATE_BYTES)}: no chat template is")
    text = decode(what, data)
    if not text.strip():
        raise UsageError(f"{what} is blank: leave it out for the model's own")
    return text


def fill_sampling(given: SamplingParams, model: str, llm: LLM) -> SamplingParams:
    """Fill what the flags leave open with what the library says of the model, else its file,
    else mild values."""
    return given.filled(_recommended(model, llm)[1])


def sampling_sources(given: SamplingParams, model: str, llm: LLM) -> dict[str, str]:
    """Who said each value that shapes a draw: a flag, the library, the model's own files, or nobody
    (Octavo's default). Beams are searched: nothing shapes them."""
    if given.beam_width is not None:
        return {}
    source, recommended = _recommended(model, llm)

    def source_of(name: str) -> str:
        if getattr(given, name) is not None:
            return "flag"
        is_said = getattr(recommended, name) != getattr(Sampling(), name)
        return source if is_said else "default"

    return {field.name: source_of(field.name) for field in fields(Sampling)}


def _recommended(model: str, llm: LLM) -> tuple[str, Sampling]:
    if known := LIBRARY.get(model):
        return "library", known.sampling
    if llm.info.sampling is not None:
        return "model", llm.info.sampling
    return "default", _FALLBACK


def check_logprobs(sampling: SamplingParams, json: bool) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(sampling, name) is not None and not json:
            raise UsageError(f"--{name.replace('_', '-')} is shown with --json only: add it")


def figures_line(output: RequestOutput) -> str:
    """Tell what the answer took on one line, of 78 columns as long as the numbers are small."""
    usage, metrics = output.usage, output.metrics
    prompt = f"{counted(usage.prompt_tokens, 'prompt token')}, {usage.cached_tokens:,} cached"
    parts = [
        prompt + _rate(metrics.prefill_tps),
        f"{usage.completion_tokens:,} new" + _rate(metrics.decode_tps),
        f"KV {size(metrics.kv_bytes)}",
    ]
    if output.cache.let_go_tokens:
        parts.append(f"{output.cache.let_go_tokens:,} let go")
    return "[" + " · ".join(parts) + "]"


def cut_line(output: RequestOutput, info: ModelInfo, max_tokens: int | None) -> str | None:
    """Say why an answer ended before the model ended it; None where it did not, or not against the
    user's wish, who asked for at most `max_tokens`."""
    reasons = [answer.finish_reason for answer in output.outputs]
    if "deadline" in reasons:
        return "the answer was cut by its deadline"
    room = info.context - output.usage.prompt_tokens + 1  # the last token drawn is never computed
    cut = [len(a.token_ids) for a in output.outputs if a.finish_reason == "length"]
    longest = max(cut, default=0)
    if longest == room:
        return f"the answer was cut: the context of {counted(info.context, 'token')} is full"
    if longest and longest == info.sliding_context and max_tokens is None:
        return f"the answer was cut after {counted(longest, 'token')}: --max-tokens asks for more"
    return None


def _rate(tokens_per_second: float | None) -> str:
    """The speed to append to a line; "" where none was measured, as with a single new token."""
    return "" if tokens_per_second is None else f", {number(tokens_per_second)} tok/s"


def hidden_line(
    output: RequestOutput, tokenizer: Tokenizer, shown: Container[int] = ()
) -> str | None:
    """The control tokens inside the answers: drawn, but no text, nor `shown` as one. The one that
    ends an answer is none of them."""
    drawn: Counter[str] = Counter()
    for answer in output.outputs:
        inside = answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids
        hidden = (i for i in inside if tokenizer.is_control(i) and i not in shown)
        drawn.update(tokenizer.spec.tokens[i] for i in hidden)
    names = [one_line(name) + (f" ({count})" if count > 1 else "") for name, count in drawn.items()]
    return f"[drawn, not shown: {', '.join(names)}]" if names else None
