"""From a model's name to its header or a running LLM; a library model that is missing is pulled,
and so is what is missing of a model on the hub.

Imports inside functions are what a start without a pull, or without a model, need not wait for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.cli.figures import size
from octavo.cli.screen import Screen
from octavo.cli.staying import staying
from octavo.config import EngineConfig, check_context
from octavo.environment import find_home, home
from octavo.planning.sliding import apply_sliding_context
from octavo.weights import library
from octavo.weights.hub.name import PREFIX
from octavo.weights.progress import Progress

if TYPE_CHECKING:
    import rich.progress

    from octavo.model.config import ModelConfig
    from octavo.program.program import Program
    from octavo.serving.llm import LLM
    from octavo.weights.model_header import ModelHeader

USUAL_CONTEXT = 1024  # tokens that plan and explain look at where none are asked for


def open_llm(model: str, engine: Mapping[str, Any]) -> LLM:
    """Load `model` with these keywords of LLM."""
    with staying():
        from octavo.serving.llm import LLM

    return LLM(str(find_or_pull(model)), **engine)


def open_header(model: str) -> ModelHeader:
    """Read what `model` is, before its weights are."""
    from octavo.weights.model_header import read_header

    return read_header(find_or_pull(model))


def open_program(
    model: str, context: int | None, config: EngineConfig
) -> tuple[ModelHeader, Program, int]:
    """What a verb that runs nothing looks at: the model, the program that Octavo would run, and a
    context of tokens that the model has. Raises ModelError, and UsageError beyond its context."""
    EngineConfig(context=context)  # refuses what no engine has
    header = open_header(model)
    return header, *_in_context(header.config, header.program(), context, config)


def open_config(
    path: Path, context: int | None, config: EngineConfig
) -> tuple[ModelConfig, Program, int]:
    """Return of a config.json alone what `open_program` does of a model: no weight need be
    there."""
    from octavo.model.registry import build_program
    from octavo.weights.hf.config import model_config
    from octavo.weights.hf.json_fields import Fields, read_json

    EngineConfig(context=context)
    found = model_config(Fields(str(path), read_json(path)))
    return found, *_in_context(found, build_program(found), context, config)


def _in_context(
    model: ModelConfig, program: Program, context: int | None, config: EngineConfig
) -> tuple[Program, int]:
    most = config.longest_sequence(model.longest(context))
    program = apply_sliding_context(program, config, model.context)
    check_context(context, most, model.why_no_longer)
    usual = config.sliding_context or min(USUAL_CONTEXT, most)
    return program, usual if context is None else context


def find_or_pull(model: str) -> Path:
    """The model's file or directory. A library model that is missing is fetched first, if Octavo
    runs it, and what is missing of a model on the hub; progress on stderr."""
    if model.startswith(PREFIX):
        return fetch_from_hub(model)
    known, folder = library.LIBRARY.get(model), find_home()
    if known is None or folder is None or known.is_installed(folder) or known.unsupported:
        return library.find(model, home=folder)
    return pull(model)


def pull(name: str) -> Path:
    """Fetch a library model, with a progress bar where standard error is a terminal."""
    from octavo.weights import download

    if not sys.stderr.isatty():
        Screen(as_json=False).note(f"octavo: pulling {name}")
    with _progress() as show:
        return download.pull(name, home=home(), progress=show)


def fetch_from_hub(name: str) -> Path:
    """Fetch a model on the hub, with the same bar; where nothing is missing nothing is shown."""
    with _progress() as show:
        return library.fetch_from_hub(name, progress=show)


def _progress() -> AbstractContextManager[Progress]:
    return _Bars() if sys.stderr.isatty() else nullcontext(_Lines(Screen(as_json=False)))


class _Lines:
    """Progress for logs: a line for each new thing that goes on, and one every five seconds."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._what = ""
        self._next = 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if what != self._what or now >= self._next:
            self._what, self._next = what, now + 5
            self._screen.note(f"{what}: {size(done)} of {size(total)}")


class _Bars:
    """Progress for terminals: a bar for each thing that goes on, from when it begins."""

    def __init__(self) -> None:
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}  # by what is going on

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _show(self, done: int, total: int, what: str) -> None:
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)


def _new_bars() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),  # as all sizes are written
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
