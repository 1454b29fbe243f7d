"""`octavo run`: one prompt, one answer, streamed as it is made, and a line of figures."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.figures import number, pairs, size
from octavo.cli.flags import ENGINE, SAMPLING, AsJson, Model, check_utf8, with_flags
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.trace import StepTrace
from octavo.errors import UsageError
from octavo.request import RequestOutput
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.llm import LLM

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT", help="What to say; - or nothing reads it from standard input."
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Continue the prompt; no chat template.")]
System = Annotated[str | None, typer.Option(help="A system message before the prompt.")]
Template = Annotated[
    Path | None, typer.Option(help="A Jinja chat template to use in place of the model's.")
]
ParseSpecial = Annotated[
    bool,
    typer.Option("--parse-special", help="Read names of special tokens in the prompt as such."),
]
TraceSteps = Annotated[
    bool,
    typer.Option(
        "--trace-steps",
        help="A line a step: the text so far, tokens whose K and V were computed, and were read.",
    ),
]
Stats = Annotated[bool, typer.Option("--stats", help="Print the engine's figures at the end.")]


def register(app: typer.Typer) -> None:
    app.command("run")(run)


@with_flags(sampling=SAMPLING, engine=ENGINE)
def run(
    model: Model,
    prompt: Prompt = None,
    *,
    raw: Raw = False,
    system: System = None,
    chat_template: Template = None,
    parse_special: ParseSpecial = False,
    trace_steps: TraceSteps = False,
    stats: Stats = False,
    json: AsJson = False,
    sampling: SamplingParams,
    engine: dict[str, object],
) -> None:
    """Answer one prompt. A library model that is missing is pulled first."""
    screen = Screen(json)
    if raw and (system is not None or chat_template is not None):
        raise UsageError("--raw takes the prompt as it is: leave out --system and --chat-template")
    check_logprobs(sampling, json)
    text = _read_prompt(model, prompt)
    template = read_template(chat_template)
    llm = open_llm(model, engine)
    plain = raw or (template is None and llm.tokenizer.spec.chat_template is None)
    if plain and system is not None:
        raise UsageError(
            f"{model} has no chat template to put --system into: give one with --chat-template"
        )
    if plain:
        ids = llm.tokenizer.encode(text, parse_special=parse_special)
    else:
        ids = llm.tokenizer.encode_chat(
            messages_of(system, text), chat_template=template, parse_special=parse_special
        )
    trace = StepTrace(llm, screen, start=text if plain else "") if trace_steps else None
    output = _answer(llm, ids, sampling, screen, trace)
    screen.note(figures_line(output))
    if stats:
        screen.note(stats_text(llm))
    found = output.to_dict()
    if trace is not None:
        found["steps"] = [asdict(record) for record in trace.records]
    if stats:
        found["stats"] = llm.stats()
    screen.result(found)


def read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--chat-template: cannot read {path}: {error}") from None


def check_logprobs(sampling: SamplingParams, json: bool) -> None:
    if sampling.logprobs is not None and not json:
        raise UsageError("--logprobs is shown with --json only: add it")


def messages_of(system: str | None, user: str) -> list[dict[str, str]]:
    first = (
        [] if system is None else [{"role": "system", "content": check_utf8("--system", system)}]
    )
    return [*first, {"role": "user", "content": user}]


def figures_line(output: RequestOutput) -> str:
    """What the answer took, on one line."""
    usage, metrics = output.usage, output.metrics
    parts = [
        f"{usage.prompt_tokens:,} prompt tokens",
        f"prefill {_rate(metrics.prefill_tps)}",
        f"{usage.completion_tokens:,} new tokens",
        f"decode {_rate(metrics.decode_tps)}",
        f"KV {size(metrics.kv_bytes)}",
    ]
    return "[" + " · ".join(parts) + "]"


def stats_text(llm: LLM) -> str:
    """The engine's figures, a line each, under the names that --json has."""
    rows = []
    for name, value in llm.stats().items():
        rows.append((name, number(value) if isinstance(value, int | float) else str(value)))
    return pairs(rows)


def _rate(tokens_per_second: float | None) -> str:
    return "not measured" if tokens_per_second is None else f"{number(tokens_per_second)} tok/s"


def _read_prompt(model: str, prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return check_utf8("the prompt", prompt)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            f'no prompt: octavo run {model} "…", or pipe one in; to talk: octavo chat {model}'
        )
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the prompt on standard input is not UTF-8 at byte {error.start}"
        ) from None
    if not text.strip():
        raise UsageError("the prompt on standard input is empty: did what should write it fail?")
    return text.removesuffix("\n")  # the one that echo adds


def _answer(
    llm: LLM, ids: list[int], sampling: SamplingParams, screen: Screen, trace: StepTrace | None
) -> RequestOutput:
    """Show the answer as it is made, as text or as steps; with JSON only steps are shown."""
    output = None
    for chunk in llm.stream(ids, sampling):
        if trace is not None:
            trace.show(chunk.text)
        elif not screen.as_json:
            screen.write(chunk.text)
        output = chunk.output
    assert output is not None, "the last chunk of a stream has the output"
    if trace is None and not screen.as_json:
        screen.say()
    return output
