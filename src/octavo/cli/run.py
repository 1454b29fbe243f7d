"""`octavo run`: one prompt, its answer as it is made or several when they are done, and a line of
figures."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Annotated

from octavo.cli.answer import (
    Quiet,
    System,
    Template,
    check_logprobs,
    cut_line,
    figures_line,
    fill_sampling,
    hidden_line,
    read_template,
    sampling_sources,
)
from octavo.cli.channels import Channels, channels_of
from octavo.cli.command import Argument, Flag, Group
from octavo.cli.figures import number
from octavo.cli.flags import ENGINE, REQUEST, SAMPLING, AsJson, Model, with_flags
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.stats import Stats, cache_line, kv_line, sampling_line, say_memory, stats_text
from octavo.cli.trace import StepTrace
from octavo.errors import UsageError
from octavo.given_text import check_utf8, decode
from octavo.request import Completion, RequestOptions, RequestOutput, StreamChunk
from octavo.sampling_params import SamplingParams

Prompt = Annotated[
    str | None,
    Argument(metavar="PROMPT", help="What to say; - or nothing reads it from standard input."),
]
Raw = Annotated[bool, Flag("--raw", help="Continue the prompt; no chat template.")]
ParseSpecial = Annotated[
    bool,
    Flag("--parse-special", help="Read names of special tokens in the prompt as such."),
]
TraceSteps = Annotated[
    bool,
    Flag(
        "--trace-steps",
        help="A line a step: the text so far, tokens whose K and V were computed, and were read.",
    ),
]


def register(app: Group) -> None:
    app.add("run", run)


@with_flags(sampling=SAMPLING, request=REQUEST, engine=ENGINE)
def run(
    model: Model,
    prompt: Prompt = None,
    *,
    raw: Raw = False,
    system: System = None,
    chat_template: Template = None,
    parse_special: ParseSpecial = False,
    trace_steps: TraceSteps = False,
    quiet: Quiet = False,
    stats: Stats = False,
    json: AsJson = False,
    sampling: SamplingParams,
    options: RequestOptions,
    engine: dict[str, object],
) -> None:
    r"""Answer one prompt. A library model that is missing is pulled first.

    Where no flag says how tokens are drawn, it is as the model's makers recommend, else with
    temperature 0.7 and top-p 0.9; --stats tells what it was.

    Control characters of an answer, but newlines and tabs, are shown as escapes such as \x1b;
    --json has the text as it is.
    """
    screen = Screen(json, quiet)
    if raw and (system is not None or chat_template is not None):
        raise UsageError("--raw takes the prompt as it is: leave out --system and --chat-template")
    check_logprobs(sampling, json)
    several = sampling.n > 1 or sampling.beam_width is not None
    if several and trace_steps:
        raise UsageError("--trace-steps follows one answer: leave out --n and --beam-width")
    text = _read_prompt(model, prompt)
    template = read_template(chat_template)
    llm = open_llm(model, engine)
    say_memory(screen, llm.info)
    sources = sampling_sources(sampling, model, llm)
    sampling = fill_sampling(sampling, model, llm)
    plain = raw or (template is None and llm.tokenizer.spec.chat_template is None)
    if plain and system is not None:
        raise UsageError(
            f"{model} has no chat template to put --system into: give one with --chat-template"
        )
    if plain and not raw:
        screen.note(f"{model} has no chat template: the prompt is continued as with --raw")
    if plain:
        ids = llm.encode(text, parse_special=parse_special)
    else:
        ids = llm.encode_chat(
            _messages_of(system, text), chat_template=template, parse_special=parse_special
        )
    own = None if plain else template or llm.template_for(tools=False)
    channels = channels_of(own, llm.tokenizer)
    options = replace(options, begins_turn=not plain, shown_tokens=channels.shown_tokens)
    trace = StepTrace(llm, screen, start=text if plain else "") if trace_steps else None
    if several:
        output = llm.generate([ids], sampling, options)[0]
        _show_answers(output, screen, channels)
    else:
        output = _stream(llm.stream(ids, sampling, options), screen, trace, channels)
    if hidden := hidden_line(output, llm.tokenizer, channels.shown_tokens):
        screen.note(hidden)
    if cut := cut_line(output, llm.info, sampling.max_tokens):
        screen.note(cut)
    screen.figures(figures_line(output))
    if stats:
        lines = [sampling_line(output.sampling), cache_line(output)]
        screen.note("\n".join([*lines, kv_line(llm.info), stats_text(llm)]))
    found = output.to_dict() | {"sampling_from": sources}
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
        if not prompt.strip():
            raise UsageError("the prompt is empty: did what should write it fail?")
        return check_utf8("the prompt", prompt)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            f'no prompt: octavo run {model} "…", or pipe one in; to talk: octavo chat {model}'
        )
    text = decode("the prompt on standard input", sys.stdin.buffer.read())
    if not text.strip():
        raise UsageError("the prompt on standard input is empty: did what should write it fail?")
    return text.removesuffix("\n")  # the one that echo adds


def _stream(
    chunks: Iterable[StreamChunk], screen: Screen, trace: StepTrace | None, channels: Channels
) -> RequestOutput:
    """Show the answer as it is made, as text or as steps; with JSON only steps are shown."""
    output, as_text = None, trace is None and not screen.as_json
    shown = channels.reader()
    try:
        for chunk in chunks:
            if trace is not None:
                trace.show(chunk)
            elif as_text:
                screen.write(shown.push(chunk.text))
            output = chunk.output
    except KeyboardInterrupt:
        if as_text:
            screen.say()  # the shell's prompt must not stand behind half an answer
        raise
    assert output is not None, "the last chunk of a stream has the output"
    if as_text:
        screen.say(shown.finish())
    return output


def _show_answers(output: RequestOutput, screen: Screen, channels: Channels) -> None:
    """Write the answers, each under a line of its own where there are several."""
    if screen.as_json:
        return
    count = len(output.outputs)
    for index, answer in enumerate(output.outputs, 1):
        if count > 1:
            screen.say(_header(answer, f"{index} of {count}"))
        shown = channels.reader()
        screen.say(shown.push(answer.text) + shown.finish())


def _header(answer: Completion, place: str) -> str:
    parts = [place, answer.finish_reason]
    if answer.cumulative_logprob is not None:
        parts.append(f"log-probability {number(answer.cumulative_logprob)}")
    return "[" + " · ".join(parts) + "]"
