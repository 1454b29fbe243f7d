"""`octavo serve`: the model behind OpenAI's and Anthropic's APIs, until it is stopped."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from contextlib import closing, redirect_stderr
from pathlib import Path
from typing import Any

from octavo.cli.answer import read_template
from octavo.cli.aside import Aside
from octavo.cli.command import Group
from octavo.cli.flags import BATCH_ENGINE, AsJson, Model, flags_of, with_flags
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.cli.staying import staying
from octavo.errors import UsageError
from octavo.server.config import ServerConfig

_NEEDED = ("uvicorn", "httptools", "starlette", "orjson", "prometheus_client")


def register(app: Group) -> None:
    app.add("serve", serve)


@with_flags(server=flags_of(ServerConfig), engine=BATCH_ENGINE)
def serve(
    model: Model, server: dict[str, Any], engine: dict[str, object], json: AsJson = False
) -> None:
    """Serve a model by OpenAI's and Anthropic's APIs.

    It listens on http://127.0.0.1:8000, where / is a page to talk on. Ctrl-C, or SIGTERM,
    lets open requests end; a second ends at once, with exit code 1 if that breaks off any.

    With --json its one object tells the address, as soon as the model answers.
    """
    config = ServerConfig(**server)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the server needs {', '.join(missing)}: pip install 'octavo[server]'")
    with staying():
        from octavo.server.admission import PROMPTS_WAITING
        from octavo.server.serve import serve as run
        from octavo.serving.async_engine import AsyncEngine

    logging.getLogger("octavo.server.log").setLevel(logging.INFO)
    path = config.chat_template
    template = read_template(None if path is None else Path(path))

    with closing(Aside(sys.stderr)) as aside, redirect_stderr(aside):
        said = _Said(Screen(json), aside)

        def load() -> tuple[AsyncEngine, str]:
            said.note(f"loading {model}")  # what cannot be served is told in one line
            return AsyncEngine(open_llm(model, engine), max_waiting=PROMPTS_WAITING), _name(model)

        run(config, load, said, template)


class _Said:
    def __init__(self, screen: Screen, lines: Aside) -> None:
        self._screen = screen
        self._lines = lines

    def ready(self, address: str, name: str) -> None:
        self.note(f"{name} is served at {address}")
        self._screen.result({"model": name, "address": address, "pid": os.getpid()})

    def note(self, line: str) -> None:
        self._screen.note(f"octavo: {line}")

    def close(self) -> None:
        self._lines.close()


def _name(model: str) -> str:
    """The name that clients call the model by."""
    return Path(model).name if Path(model).exists() else model
