"""A batch run to its end, or until it is killed at a prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from octavo import LLM
from octavo.batch_job import BatchJob, Outcome, Source, Summary
from tests.batch_job.shouting_llm import ShoutingLLM

ORIGIN = {"model": "m"}


class Killed(BaseException):
    """What no `except` of the run catches."""


def run(
    path: Path,
    out: Path,
    llm: ShoutingLLM | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
    origin: dict[str, str] = ORIGIN,
) -> Summary:
    with Source(path) as source, BatchJob(source, out, model="m", origin=origin) as work:
        if work.finished is not None:
            return work.finished
        work.run(as_llm(llm or ShoutingLLM()), report, template=None)
        return work.finish()


def as_llm(llm: ShoutingLLM) -> LLM:
    return cast(LLM, llm)


def killed_at(prompt: str) -> Callable[[str], None]:
    def kill(text: str) -> None:
        if text == prompt:
            raise Killed

    return kill
