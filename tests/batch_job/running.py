"""A batch run to its end, or until it is killed at a prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import pytest

from octavo import LLM
from octavo.batch_job import BatchJob, Outcome, Source, Summary
from tests.batch_job.lines import said, write
from tests.batch_job.shouting_llm import ShoutingLLM

ORIGIN = {"model": "m"}


class Killed(BaseException):
    """What no `except` of the run catches."""


class Batch:
    """IN and OUT in a folder, and the journal that a kill leaves beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "in"
        self.out, self.journal = folder / "out", folder / "out.partial"

    @property
    def said(self) -> list[tuple[str | None, list[str] | str]]:
        return said(self.out)

    def write(self, *lines: str) -> Self:
        write(self.path, *lines)
        return self

    def run(
        self,
        llm: ShoutingLLM | None = None,
        report: Callable[[Outcome], None] = lambda outcome: None,
        origin: dict[str, str] = ORIGIN,
    ) -> Summary:
        with Source(self.path) as source, self.open(source, origin) as work:
            if work.finished is not None:
                return work.finished
            work.run(as_llm(llm or ShoutingLLM()), report, template=None)
            return work.finish()

    def run_again(self) -> list[list[str]]:
        """What an LLM is called with that finishes what is there."""
        llm = ShoutingLLM()
        self.run(llm)
        return llm.calls

    def open(self, source: Source, origin: dict[str, str] = ORIGIN) -> BatchJob:
        return BatchJob(source, self.out, model="m", origin=origin)

    def run_killed_at(self, prompt: str, **options: Any) -> None:
        def kill(text: str) -> None:
            if text == prompt:
                raise Killed

        with pytest.raises(Killed):
            self.run(ShoutingLLM(before=kill, **options))


def as_llm(llm: ShoutingLLM) -> LLM:
    return cast(LLM, llm)
