"""The machine a figure belongs to, and what it can do at best right now.

A shared machine drifts by a factor of two within the hour, so a peak measured once is no measure:
`Probe` is cheap enough to be asked between the rounds of a benchmark.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    isa: str
    threads: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The speeds that all threads together reached just now."""

    bytes_per_second: float  # reading memory, of a size no cache holds
    ops_per_second: float  # int8 multiply-adds in registers, 2 operations each


class Probe(Protocol):
    def read(self) -> Reading: ...


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as the system has it, else its architecture."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.machine()
