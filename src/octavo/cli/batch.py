"""`octavo batch`: a file of requests in, one of results out; `octavo.batch_job` does the work."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from click.exceptions import Exit

from octavo.batch_job import BatchJob, Outcome, Source, Summary, pick_model
from octavo.cli.answer import Quiet, Template, read_template
from octavo.cli.bar import requests_bar
from octavo.cli.command import Argument, Flag, Group
from octavo.cli.figures import duration
from octavo.cli.flags import BATCH_ENGINE, AsJson, with_flags
from octavo.cli.loading import find_or_pull, open_llm
from octavo.cli.screen import Screen, one_line
from octavo.cli.stats import Stats, kv_line, say_memory, stats_text
from octavo.config import EngineConfig
from octavo.environment import find_home
from octavo.errors import ModelNotFoundError, counted
from octavo.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from octavo.serving.llm import LLM

Input = Annotated[
    Path, Argument(metavar="IN", help="Requests, one a line, in OpenAI's batch format.")
]
Output = Annotated[Path, Argument(metavar="OUT", help="Results, one a line, in the order of IN.")]
ModelName = Annotated[
    str | None,
    Flag(
        "--model",
        metavar="MODEL",
        help="Runs all lines, whatever they name; default: the one model that they name.",
        shows_default=False,
    ),
]

_LINES_SAID = 20  # at fault, before the rest is only counted


def register(app: Group) -> None:
    app.add("batch", batch)


@with_flags(engine=BATCH_ENGINE)
def batch(
    source: Input,
    output: Output,
    *,
    model: ModelName = None,
    chat_template: Template = None,
    quiet: Quiet = False,
    stats: Stats = False,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """Answer every request of a file.

    Run again after a stop, it goes on where it was. Lines are /v1/chat/completions or
    /v1/completions requests in OpenAI's batch format. A line that is no request, or is refused, has
    its error in OUT and does not stop the others; the exit code is then 1. Until all is done
    results are kept in OUT.partial. An OUT that is there already is never overwritten: if it is the
    result of this very batch nothing is left to do.
    """
    screen = Screen(json, quiet)
    template = read_template(chat_template)
    began = time.monotonic()
    job = None
    try:
        with Source(source) as lines:
            name = pick_model(lines, model)
            origin = _origin(lines, name, given=model is not None, template=template, engine=engine)
            with BatchJob(lines, output, model=name, origin=origin) as job:
                llm, done_before = None, job.num_done - len(lines.faults)
                summary = job.finished
                if summary is None:
                    _say_start(screen, job, done_before)
                    if job.num_done < len(lines):
                        llm = _run(screen, job, str(name), engine, template)
                    summary = job.finish()
            seconds = time.monotonic() - began
            found = _found(job, name, summary, done_before, seconds)
    except BaseException as error:
        _say_stop(screen, job, error)
        raise
    if job.finished is None:
        screen.figures(_figures(summary, done_before, seconds))
    else:
        screen.note(_nothing_to_do(job, summary))
    if stats and llm is not None:
        screen.note("\n".join([kv_line(llm.info), stats_text(llm)]))
        found["stats"] = llm.stats()
    screen.result(found)
    if summary.failed:
        raise Exit(1)


def _origin(
    lines: Source,
    name: str | None,
    *,
    given: bool,
    template: str | None,
    engine: Mapping[str, object],
) -> dict[str, str]:
    """Return what answers depend on beside the requests. The model is pulled here if it is
    missing."""
    if name is None:
        return {}
    try:
        path = find_or_pull(name)
    except ModelNotFoundError as error:
        if given:
            raise
        where = f"line {lines.models[name]} of {lines.path} names model {name!r}"
        raise ModelNotFoundError(f"{where}: {error}; or --model runs all lines") from None
    origin = {"model": name, "sha256 of the model": fingerprint(path, home=find_home())}
    origin |= _arithmetic(EngineConfig.parse(engine))
    if template is not None:
        origin["sha256 of the chat template"] = hashlib.sha256(template.encode()).hexdigest()
    return origin


def _arithmetic(config: EngineConfig) -> dict[str, str]:
    """The options that answers depend on; a default that was given is the default."""
    found = {
        "context": "the default" if config.context is None else str(config.context),
        "kv_dtype": "k={},v={}".format(*config.page_dtypes),
        "weights": config.weights or "the default",
        "activations": config.activations or "int8",
    }
    if config.sliding_context is not None:
        found["sliding_context"] = f"{config.sliding_context} with {config.sliding_sinks} sinks"
    return found


def _run(
    screen: Screen, job: BatchJob, name: str, engine: dict[str, object], template: str | None
) -> LLM:
    """Load the model and answer the lines that have no result yet; return the LLM."""
    llm = open_llm(name, {"schedule": "longest-prefix", **engine})
    say_memory(screen, llm.info)
    with _progress(screen, job.num_done, len(job.source)) as show:
        job.run(llm, show, template=template)
    return llm


def _say_stop(screen: Screen, job: BatchJob | None, error: BaseException) -> None:
    """However a run ends, what is done stays done."""
    if job is not None and len(job.journal):
        if job.journal.path.exists():  # else OUT is written
            screen.note(
                f"stopped: {job.num_done:,} of {len(job.source):,} lines are done and kept in "
                f"{job.journal.path}; the same command goes on from there"
            )
    elif isinstance(error, KeyboardInterrupt):
        screen.note("stopped: no line is done yet; the same command begins again")


@contextmanager
def _progress(screen: Screen, done: int, total: int) -> Iterator[Callable[[Outcome], None]]:
    """Yields what shows an outcome: a bar on a terminal, and everywhere what went wrong."""
    said = count()

    def say(outcome: Outcome) -> None:
        if outcome.error is not None and next(said) < _LINES_SAID:
            screen.note(f"line {outcome.number}: {one_line(outcome.error)}")

    if not sys.stderr.isatty():
        yield say
        return
    with requests_bar(auto_refresh=True) as bar:
        task = bar.add_task("requests", total=total, completed=done)

        def advance(outcome: Outcome) -> None:
            say(outcome)  # rich moves it above the bar
            bar.advance(task)

        yield advance


def _say_start(screen: Screen, job: BatchJob, done_before: int) -> None:
    if job.journal.input_changed:
        screen.note(f"{job.source.path} is not what it was when {job.journal.path} was begun")
    if done_before:
        screen.note(f"{done_before:,} of {len(job.source):,} lines were done before")
    for index, fault in enumerate(job.source.faults.values()):
        if index == _LINES_SAID:
            more = len(job.source.faults) - _LINES_SAID
            screen.note(f"… and {counted(more, 'more line')} at fault: {job.output} will name each")
            return
        screen.note(f"line {fault.number}: {one_line(str(fault.error))}")


def _found(
    job: BatchJob, name: str | None, summary: Summary, done_before: int, seconds: float
) -> dict[str, object]:
    return {
        "input": str(job.source.path),
        "output": str(job.output),
        "model": name,
        "lines": len(job.source),
        **asdict(summary),
        "done_before": len(job.source) if job.finished is not None else done_before,
        "seconds": seconds,
    }


def _nothing_to_do(job: BatchJob, summary: Summary) -> str:
    line = f"{job.output} has all results of {job.source.path} already: nothing to do"
    return f"{line}; {counted(summary.failed, 'line')} failed" if summary.failed else line


def _figures(summary: Summary, done_before: int, seconds: float) -> str:
    """Tell of the whole output, but of this run's time."""
    prompt = counted(summary.prompt_tokens, "prompt token")
    parts = [
        f"{summary.succeeded:,} answered",
        f"{summary.failed:,} failed",
        f"{prompt}, {summary.cached_tokens:,} cached",
        f"{summary.completion_tokens:,} new",
        f"{'this run ' if done_before else ''}{duration(seconds)}",
    ]
    return "[" + " · ".join(parts) + "]"
