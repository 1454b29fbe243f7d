"""Where words go: a verb's text on standard output, or on standard error when JSON has the output.

With --json standard output holds one line, the object. Knows no verbs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Screen:
    as_json: bool

    @property
    def out(self) -> TextIO:
        return sys.stderr if self.as_json else sys.stdout

    def say(self, text: str = "") -> None:
        """A line of the answer."""
        print(text, file=self.out, flush=True)

    def write(self, text: str) -> None:
        """A piece of a line, shown at once."""
        self.out.write(text)
        self.out.flush()

    def note(self, text: str) -> None:
        """A line about the answer."""
        print(text, file=sys.stderr, flush=True)

    def result(self, found: Mapping[str, object]) -> None:
        """The JSON object; call it last."""
        if self.as_json:
            print(json.dumps(found, allow_nan=False), flush=True)
