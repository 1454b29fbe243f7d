"""The lines that a recipe asks for, as what a contributor would add to the sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lines:
    """Lines that come before or after the first place of `at` in a file."""

    path: str
    at: str
    text: str
    before: bool = False

    def add_to(self, tree: Path) -> None:
        path = tree / self.path
        source = path.read_text()
        assert self.at in source, f"{self.path} has no {self.at!r}: the recipe has changed"
        new = self.text + self.at if self.before else self.at + self.text
        path.write_text(source.replace(self.at, new, 1))
