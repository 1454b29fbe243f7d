"""What became of a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


Octavo = Callable[..., Result]


def refused(complaint: str, code: int = 2) -> Result:
    """What is left of a command line that is wrong: one line, and an exit code."""
    return Result(code, "", f"octavo: {complaint}\n")
