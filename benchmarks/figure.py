"""Figure: one number of ours, what it has to equal, and what others report. Knows nothing of how it
was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """`met` is None where nothing is promised: the number stands beside theirs, no more."""

    name: str
    ours: float
    unit: str  # "%" or "x"
    theirs: str = ""
    goal: str = ""
    met: bool | None = None
    counts: dict[str, float] = field(default_factory=dict)  # what `ours` is made of


def table(figures: Iterable[Figure]) -> str:
    """One line a figure, columns aligned."""
    lines = [("figure", "ours", "theirs", "goal", "")]
    for figure in figures:
        ours = f"{figure.ours:.2f} {figure.unit}"
        met = {None: "", True: "met", False: "NOT MET"}[figure.met]
        lines.append((figure.name, ours, figure.theirs or "-", figure.goal or "-", met))
    return "\n".join(_aligned(lines))


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
