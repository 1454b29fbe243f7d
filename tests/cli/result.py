"""`octavo` as a function, and what becomes of a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.batch_job.lines import write
from tests.cli.tiny_model import TINY

GREEDY = ("--temperature", "0", "--max-tokens", "8")  # a short answer in which nothing is drawn


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])

    def said(self, *roles: str) -> list[str]:
        """What these said in the conversation that `octavo chat --json` printed."""
        return [m["content"] for m in self.json["messages"] if m["role"] in roles]


Octavo = Callable[..., Result]


def refused(complaint: str, code: int = 2) -> Result:
    """What is left of a command line that is wrong: one line, and an exit code."""
    return Result(code, "", f"octavo: {complaint}\n")


@dataclass(frozen=True)
class BatchFiles:
    """IN and OUT of `octavo batch`."""

    octavo: Octavo
    source: Path
    out: Path

    def write(self, *lines: str) -> Self:
        write(self.source, *lines)
        return self

    def run(self, *flags: str, model: Any = TINY) -> Result:
        chosen = [] if model is None else ["--model", model]
        return self.octavo("batch", str(self.source), str(self.out), *chosen, *flags)
