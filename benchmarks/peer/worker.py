"""The other end of `python_peer`: questions as lines of JSON in, answers out, one engine between.

Runs in the peers' interpreters: the standard library and `workloads`, nothing else. What an engine
prints goes to standard error, so that no answer is mixed with it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from benchmarks.peer.workloads import Workload, from_dict

_UNMEASURED = 10_000  # added to the seed of a round that only warms up


@dataclass(frozen=True)
class Options:
    """What an engine is opened with."""

    model: str
    directory: str
    vocabulary: int
    threads: int
    context: int
    streams: int


class CannotError(Exception):
    """The engine has no way to do a workload, or to run this model."""


class Engine(Protocol):
    def measure(self, work: Workload, prompts: list[list[int]]) -> float:
        """Tokens a second. Raises CannotError."""
        ...


def serve(open_engine: Callable[[Options], Engine]) -> None:
    """Answer until the questions end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    options = Options(**json.loads(sys.stdin.readline()))
    engine: Engine | None = None
    warmed: set[str] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        work = from_dict(asked["work"])
        try:
            engine = engine or open_engine(options)
            if work.name not in warmed and work.counted != "all":
                seed = asked["seed"] + _UNMEASURED
                engine.measure(work, work.prompts(options.vocabulary, seed))
            warmed.add(work.name)
            speed = engine.measure(work, work.prompts(options.vocabulary, asked["seed"]))
            answer: dict[str, object] = {"speed": speed}
        except CannotError as error:
            answer = {"unable": str(error)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
