"""`octavo run`: one prompt, one answer, streamed as it is made, and a line of figures."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.answer import (
    System,
    Template,
    check_logprobs,
    figures_line,
    read_template,
    stats_text,
)
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
    if plain and not raw:
        screen.note(f"{model} has no chat template: the prompt is continued as with --raw")
    if plain:
        ids = llm.tokenizer.encode(text, parse_special=parse_special)
    else:
        ids = llm.encode_chat(
            _messages_of(system, text), chat_template=template, parse_special=parse_special
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


def _messages_of(system: str | None, user: str) -> list[dict[str, str]]:
    first = (
        [] if system is None else [{"role": "system", "content": check_utf8("--system", system)}]
    )
    return [*first, {"role": "user", "content": user}]


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
    output, as_text = None, trace is None and not screen.as_json
    try:
        for chunk in llm.stream(ids, sampling):
            if trace is not None:
                trace.show(chunk.text)
            elif as_text:
                screen.write(chunk.text)
            output = chunk.output
    except KeyboardInterrupt:
        if as_text:
            screen.say()  # the shell's prompt must not stand behind half an answer
        raise
    assert output is not None, "the last chunk of a stream has the output"
    if as_text:
        screen.say()
    return output
