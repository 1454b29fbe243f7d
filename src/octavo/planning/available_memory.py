"""Available memory: bytes that this process may still take, by all that limits it: the system, its
cgroups (v2, v1, or both), and limits of its own (`ulimit -v`, `ulimit -d`).

Reads /proc and /sys below `root`. What is missing there, or makes no sense, limits nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NO_LIMIT = 2**62


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that the tightest limit leaves, at least 0."""
    return max(0, min(_left_by_system(root), _left_by_cgroups(root), _left_by_process(root)))


def _left_by_system(root: Path) -> int:
    found = _numbers(root / "proc/meminfo")
    if "MemAvailable" not in found:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    left = found["MemAvailable"]
    if _number(root / "proc/sys/vm/overcommit_memory") == 2:  # what is reserved counts, not touched
        left = min(left, found.get("CommitLimit", left) - found.get("Committed_AS", 0))
    return left * 1024


def _left_by_process(root: Path) -> int:
    left = _NO_LIMIT
    used = _numbers(root / "proc/self/status")
    for line in _lines(root / "proc/self/limits"):
        for limit, counter in (("Max address space ", "VmSize"), ("Max data size ", "VmData")):
            soft = line.removeprefix(limit).split()
            if line.startswith(limit) and soft and soft[0].isdecimal():
                left = min(left, int(soft[0]) - used.get(counter, 0) * 1024)
    return left


@dataclass(frozen=True, slots=True)
class _Version:
    """What the memory files of a cgroup are called, and where they lie if nothing says so."""

    limits: tuple[str, ...]  # of v2 both: above memory.high a process is slowed until it stands
    used: str
    clean: str  # of memory.stat: pages of files, which go when memory is wanted
    mount: str


_V2 = _Version(("memory.max", "memory.high"), "memory.current", "inactive_file", "sys/fs/cgroup")
_V1 = _Version(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "total_inactive_file",
    "sys/fs/cgroup/memory",
)


def _left_by_cgroups(root: Path) -> int:
    left = _NO_LIMIT
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            version = _V2
        elif "memory" in controllers.split(","):
            version = _V1
        else:
            continue
        for folder in _folders(root, version, PurePosixPath(path)):
            left = min(left, _left_in(folder, version))
    return left


def _left_in(folder: Path, version: _Version) -> int:
    limits = [_number(folder / name) for name in version.limits]
    limit = min((limit for limit in limits if limit is not None), default=_NO_LIMIT)
    clean = _numbers(folder / "memory.stat").get(version.clean, 0)
    return limit - max(0, (_number(folder / version.used) or 0) - clean)


def _folders(root: Path, version: _Version, path: PurePosixPath) -> Iterator[Path]:
    """The cgroup at `path` and all above it, whose limits hold too. Where a container sees no more
    than its own, that is the place of the mount, whatever the path says."""
    mount, top = _mount(root, version)
    folder = mount / (path.relative_to(top) if path.is_relative_to(top) else "")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _mount(root: Path, version: _Version) -> tuple[Path, PurePosixPath]:
    """Find where the hierarchy is mounted, and which cgroup of it is there."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
        wanted = kind == "cgroup2" if version is _V2 else "memory" in options.split(",")
        if wanted and kind.startswith("cgroup") and len(fields) > 4:
            return root / fields[4].lstrip("/"), PurePosixPath(fields[3])
    return root / version.mount, PurePosixPath("/")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number that is all of a file; None if it is not there, or says "max"."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    """Read the numbers of a file of lines as "MemAvailable:  5 kB" or "inactive_file 4096"."""
    rows = [line.replace(":", " ").split() for line in _lines(path)]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
