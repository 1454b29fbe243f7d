"""IN and OUT of a batch, and `octavo batch` on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.batch_job.lines import write
from tests.cli.result import Octavo, Result
from tests.cli.tiny_model import TINY


@dataclass(frozen=True)
class BatchFiles:
    octavo: Octavo
    source: Path
    out: Path

    def write(self, *lines: str) -> Self:
        write(self.source, *lines)
        return self

    def run(self, *flags: str, model: str | None = TINY) -> Result:
        chosen = [] if model is None else ["--model", model]
        return self.octavo("batch", str(self.source), str(self.out), *chosen, *flags)
