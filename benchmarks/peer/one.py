"""One peer, as everything else sees it. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peer.workloads import Workload


class NotSupportedError(Exception):
    """This peer cannot do this workload; the message says why."""


class PeerError(Exception):
    """This peer should have done it and did not; the message is one line."""


@dataclass(frozen=True, slots=True)
class Model:
    """All peers run the same one."""

    path: Path  # a GGUF file
    directory: Path | None  # the same weights as Hugging Face lays them out, for those that need it
    vocabulary: int  # ids below it are tokens


@dataclass(frozen=True, slots=True)
class Settings:
    """These hold for a whole run."""

    threads: int
    context: int  # tokens of the longest request
    streams: int  # requests that are offered together, at most
    seconds: float  # that one measurement may take


class Peer(Protocol):
    name: str
    version: str  # "" until it is known
    how: str  # in what way it is driven, for the report

    def run(self, work: Workload, seed: int) -> float:
        """Tokens a second. Raises NotSupportedError and PeerError."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Missing:
    name: str
    how: str  # to get it


def last_line(text: str, most: int = 300) -> str:
    """Return what a program said last, for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:most] if lines else "it said nothing"
