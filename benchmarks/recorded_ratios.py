"""The ratios that kernels once reached, by kind of CPU and ISA level, in one file of JSON.

Knows which ratio is too low and what has no record yet. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded" / "kernels.json"
LEAST = 0.65  # of the recorded ratio: below it something broke, above it machines just differ

Ratios = Mapping[str, float]  # by kernel

_KEYS = (  # of x86; of aarch64
    ("vendor_id", "cpu family", "model"),
    ("CPU implementer", "CPU architecture", "CPU part"),
)


def cpu_family(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Vendor, family and model as the system has them: "GenuineIntel 6 207"."""
    fields: dict[str, str] = {}
    for text in cpuinfo.read_text(errors="replace").splitlines():
        name, _, value = text.partition(":")
        fields.setdefault(name.strip(), value.strip())
    for keys in _KEYS:
        if all(key in fields for key in keys):
            return " ".join(fields[key] for key in keys)
    raise ValueError(f"{cpuinfo}: expected {', '.join(_KEYS[0])} or {', '.join(_KEYS[1])}")


@dataclass(frozen=True, slots=True)
class Low:
    kernel: str
    found: float
    recorded: float

    def __str__(self) -> str:
        return (
            f"{self.kernel}: {self.found:.1%} of its limit, recorded {self.recorded:.1%}; "
            f"expected at least {LEAST * self.recorded:.1%}"
        )


def too_low(found: Ratios, recorded: Ratios) -> list[Low]:
    return [
        Low(kernel, ratio, recorded[kernel])
        for kernel, ratio in found.items()
        if kernel in recorded and ratio < LEAST * recorded[kernel]
    ]


class Recorded:
    """The file; every level of every kind of CPU under "vendor family model level"."""

    def __init__(self, path: Path = RECORDED) -> None:
        self._path = path
        self._all: dict[str, dict[str, float]] = {}
        if path.exists():
            self._all = json.loads(path.read_text())

    def of(self, family: str, isa: str) -> Ratios:
        return self._all.get(f"{family} {isa}", {})

    def add(self, family: str, isa: str, found: Ratios) -> list[str]:
        """Write down the kernels that have no record; which those were."""
        entry = self._all.setdefault(f"{family} {isa}", {})
        new = [kernel for kernel in found if kernel not in entry]
        if new:
            entry.update((kernel, round(found[kernel], 4)) for kernel in new)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._all, indent=1, sort_keys=True) + "\n")
        return new
