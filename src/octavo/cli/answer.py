"""What `run` and `chat` share: flags that shape an answer, and the figures shown after it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.figures import number, size
from octavo.cli.screen import one_line
from octavo.errors import UsageError, counted
from octavo.request import RequestOutput
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer

System = Annotated[str | None, typer.Option(help="A system message before the prompt.")]
Template = Annotated[
    Path | None, typer.Option(help="A Jinja chat template to use in place of the model's.")
]


def read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--chat-template: cannot read {path}: {error}") from None


def check_logprobs(sampling: SamplingParams, json: bool) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(sampling, name) is not None and not json:
            raise UsageError(f"--{name.replace('_', '-')} is shown with --json only: add it")


def figures_line(output: RequestOutput) -> str:
    """What the answer took, on one line."""
    usage, metrics = output.usage, output.metrics
    parts = [
        f"{counted(usage.prompt_tokens, 'prompt token')}, {usage.cached_tokens:,} of them cached",
        f"prefill {_rate(metrics.prefill_tps)}",
        counted(usage.completion_tokens, "new token"),
        f"decode {_rate(metrics.decode_tps)}",
        f"KV {size(metrics.kv_bytes)}",
    ]
    if any(answer.finish_reason == "deadline" for answer in output.outputs):
        parts.append("ended by its deadline")
    return "[" + " · ".join(parts) + "]"


def _rate(tokens_per_second: float | None) -> str:
    return "not measured" if tokens_per_second is None else f"{number(tokens_per_second)} tok/s"


def hidden_line(output: RequestOutput, tokenizer: Tokenizer) -> str | None:
    """The control tokens inside the answers: drawn, but no text. The one that ends an answer is
    none of them."""
    drawn: Counter[str] = Counter()
    for answer in output.outputs:
        inside = answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids
        drawn.update(tokenizer.spec.tokens[i] for i in inside if tokenizer.is_control(i))
    names = [one_line(name) + (f" ({count})" if count > 1 else "") for name, count in drawn.items()]
    return f"[drawn, not shown: {', '.join(names)}]" if names else None
