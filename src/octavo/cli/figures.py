"""How numbers and tables are written for people. JSON has the plain numbers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import isfinite

from octavo.cli.screen import one_line

# A MiB begins at a half, so that a token of Llama-7B is the 0.5 MiB that people know it by.
_SIZES = (
    (2**40, 2**40, "TiB"),
    (2**30, 2**30, "GiB"),
    (2**19, 2**20, "MiB"),
    (2**10, 2**10, "KiB"),
)
_COUNTS = ((10**12, 10**12, "T"), (10**9, 10**9, "G"), (10**6, 10**6, "M"), (10**4, 10**3, "k"))


def size(nbytes: float) -> str:
    """Bytes in powers of 1024, three digits: 0.5 MiB, 22.5 KiB, 1,000 MiB."""
    return _scaled(nbytes, _SIZES, "B")


def count(value: float) -> str:
    """A large count in powers of 1000, three digits: 1.07 G."""
    return _scaled(value, _COUNTS, "").rstrip()


def number(value: float) -> str:
    """Three digits or the whole number: 0.523, 12.6, 1,024."""
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write seconds in a unit that suits: 33.4 ms, 12.6 s."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def finite(value: float) -> float | None:
    """As JSON has it, which knows neither NaN nor infinity."""
    return value if isfinite(value) else None


def wrapped(line: str) -> str:
    """A sentence in lines of 80 columns, all but the first further in."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, 80, subsequent_indent=indent, break_on_hyphens=False)


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows under each other: the first column to the left, the others to the right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def pairs(rows: Sequence[tuple[str, str]], indent: str = "") -> str:
    """Names and what they are, both to the left."""
    width = max(len(name) for name, _ in rows)
    lines = (f"{indent}{name.ljust(width)}  {one_line(value)}".rstrip() for name, value in rows)
    return "\n".join(lines)


def _scaled(value: float, steps: Sequence[tuple[int, int, str]], plain: str) -> str:
    for start, unit, name in steps:
        if abs(value) >= start:
            return f"{number(value / unit)} {name}"
    return f"{number(value)} {plain}"
