"""Programs that answer as the peers' do, and peers and a probe that answer at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peer.one import Model, Settings
from benchmarks.peer.results import Outcome, Results, Sample
from benchmarks.peer.workloads import Lengths, Workload
from octavo.bench.machine import Reading

MODEL = Model(Path("/models/some.gguf"), None, vocabulary=100)
SETTINGS = Settings(threads=2, context=64, streams=4, seconds=60)

PROMPT = Workload("prefill-32", "prefill", "32 tokens", "prompt", (Lengths(32, 1),))
DECODE = Workload("decode-8", "decode", "after 8", "new", (Lengths(8, 4),))
BATCH = Workload("batch-3", "batch", "3 streams", "new", (Lengths(8, 4),) * 3)
CHAT = Workload("chat-3", "chat", "3 requests", "all", tuple(map(Lengths, (5, 6, 7), (4, 2, 3))))
SHARED = Workload("shared-2", "shared prefix", "2", "all", (Lengths(9, 4),) * 2, shared=6)
EVERY = (PROMPT, DECODE, BATCH, CHAT, SHARED)


def script(path: Path, code: str) -> Path:
    """A program of these lines of Python."""
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(0o755)
    return path


class FakePeer:
    """Answers `speeds` in turn; an exception is raised."""

    how = "made up"
    version = "1.0"

    def __init__(self, name: str, speeds: Sequence[float | Exception], log: list[str]) -> None:
        self.name = name
        self._speeds, self._log = iter(speeds), log

    def run(self, work: Workload, seed: int) -> float:
        self._log.append(f"{self.name} {work.name} {seed}")
        speed = next(self._speeds)
        if isinstance(speed, Exception):
            raise speed
        return speed

    def close(self) -> None:
        self._log.append(f"{self.name} closed")


class FakeProbe:
    """Readings in turn, of bytes a second; a hundred operations a byte."""

    def __init__(self, speeds: Sequence[float]) -> None:
        self._speeds = iter(speeds)

    def read(self) -> Reading:
        speed = next(self._speeds)
        return Reading(speed, 100 * speed)


def sampled(work: Workload, peer: str, *speeds: float, limit: float = 100.0) -> Outcome:
    return Outcome(work.name, peer, tuple(Sample(each, limit, 30.0, 1400.0) for each in speeds))


def results(*outcomes: Outcome, works: Sequence[Workload], peers: Sequence[str]) -> Results:
    return Results(
        machine={"cpu": "A CPU", "cores": 2, "threads": 2, "memory_gb": 25, "system": "Linux",
                 "isa": "avx2"},
        model={"file": "some.gguf", "bytes": 10**8, "weights": "Q4_0+F32"},
        peers={name: {"version": f"{name} 1", "how": "made up"} for name in peers},
        missing={}, works=list(works), outcomes=list(outcomes),
        runs=[{"began": "2026-11-29T04:00:00+00:00", "seconds": 9, "repeats": 3}],
    )  # fmt: skip
