"""The lines that a recipe asks a contributor to add to the sources, and a call of what came out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.packages import run


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


def python_in(tree: Path, code: str, *arguments: str) -> str:
    """What the code says where octavo is the tree's: without site, no .pth leads elsewhere."""
    path = [f"{tree / 'src'}", f"{tree}", *sys.path]
    code = f"import sys; sys.path[:] = {path!r}; {code}"
    return run(sys.executable, "-S", "-c", code, *arguments, cwd=tree).stdout
