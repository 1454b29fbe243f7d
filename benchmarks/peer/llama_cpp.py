"""llama.cpp and ik_llama.cpp, by the programs that they build: llama-bench, llama-batched-bench and
llama-server.

Each measurement is a new process. llama-bench does it twice and the second counts: ik_llama.cpp's
warms up with one token, so its first prompt finds cold memory. Knows their flags and what they
print.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from benchmarks.peer import llama_server
from benchmarks.peer.one import Model, NotSupportedError, PeerError, Settings, last_line
from benchmarks.peer.workloads import Workload

PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-server")
HOW = (
    "llama-bench; llama-batched-bench for streams; llama-server over HTTP, token ids and no "
    "streaming, for requests"
)

_SPEED_TG, _COLUMNS = 7, 10  # of llama-batched-bench's table


@dataclass(frozen=True, slots=True)
class Flavour:
    """Where the two differ."""

    bench: tuple[str, ...]  # flags of llama-bench
    decode: str  # and how it makes new tokens after others
    others: tuple[str, ...]  # flags of the other two
    slots: int  # of the server, for requests with nothing in common


FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        "llama.cpp": Flavour(
            bench=("-fa", "1"), decode="-p 0 -n {new} -d {before}", others=("-fa", "on"), slots=32
        ),
        "ik_llama.cpp": Flavour(
            bench=("-fa", "1", "-rtr", "1"), decode="-p 0 -n 0 -gp {before},{new}",
            others=("-fa", "on", "-rtr"), slots=16,
        ),
    }
)  # fmt: skip


class LlamaCpp:
    how = HOW

    def __init__(
        self, name: str, programs: Mapping[str, Path], model: Model, settings: Settings
    ) -> None:
        """`programs`: those of PROGRAMS that there are."""
        self.name, self.version = name, ""
        self._flavour = FLAVOURS[name]
        self._programs, self._model, self._settings = programs, model, settings

    def run(self, work: Workload, seed: int) -> float:
        if work.counted == "all":
            return self._serve(work, seed)
        if len(work.requests) > 1:
            return self._batched(work)
        return self._bench(work)

    def close(self) -> None:
        """Do nothing: no process is left open."""

    def _bench(self, work: Workload) -> float:
        (lengths,) = work.requests
        flags = f"-p {lengths.prompt} -n 0"
        if work.counted == "new":
            flags = self._flavour.decode.format(new=lengths.new, before=lengths.prompt)
        command = [*flags.split(), "-r", "2", "-o", "json", *self._flavour.bench]
        printed = self._run("llama-bench", command).stdout
        try:
            (found,) = json.loads(printed)
            if found["build_commit"] != "unknown":  # built outside its repository
                self.version = f"{found['build_number']} ({found['build_commit']})"
            _, speed = found["samples_ts"]
            return float(speed)
        except (ValueError, KeyError, TypeError):
            raise PeerError(f"llama-bench: expected one result, found {printed[:200]!r}") from None

    def _batched(self, work: Workload) -> float:
        lengths, streams = work.requests[0], len(work.requests)
        tokens = streams * (lengths.prompt + lengths.new)
        command = [
            "-c", str(tokens), "-b", "2048", "-ub", "512", "-npp", str(lengths.prompt),
            "-ntg", str(lengths.new), "-npl", str(streams), *self._flavour.others,
        ]  # fmt: skip
        done = self._run("llama-batched-bench", command)
        return batched_speed(done.stdout + done.stderr)

    def _serve(self, work: Workload, seed: int) -> float:
        # A prefix stays in the slot that computed it, so those that share one take turns in one.
        slots = 1 if work.shared else min(self._flavour.slots, len(work.requests))
        command = [
            str(self._program("llama-server")), *self._common(), *self._flavour.others,
            "-np", str(slots), "-c", str(slots * -(-work.context // 256) * 256),
        ]  # fmt: skip
        prompts = work.prompts(self._model.vocabulary, seed)
        return llama_server.speed(command, work, prompts, self._settings.seconds)

    def _run(self, program: str, flags: list[str]) -> subprocess.CompletedProcess[str]:
        command = [str(self._program(program)), *self._common(), *flags]
        try:
            with tempfile.TemporaryDirectory() as folder:  # they leave a log where they are
                done = subprocess.run(
                    command, capture_output=True, text=True, errors="replace", cwd=folder,
                    timeout=self._settings.seconds,
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PeerError(f"{program} did not end in {self._settings.seconds:g} s") from None
        except OSError as error:
            raise PeerError(f"{program} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise PeerError(f"{program} ended with {done.returncode}: {last_line(done.stderr)}")
        return done

    def _program(self, name: str) -> Path:
        if name not in self._programs:
            raise NotSupportedError(f"{name} is not among its programs: build it, too")
        return self._programs[name]

    def _common(self) -> list[str]:
        return ["-m", str(self._model.path), "-t", str(self._settings.threads)]


def batched_speed(printed: str) -> float:
    """Tokens a second of all streams, of the one row of llama-batched-bench's table."""
    rows = [re.split(r"\s*\|\s*", line.strip(" |")) for line in printed.splitlines()]
    found = [row for row in rows if len(row) == _COLUMNS and row[0].isdecimal()]
    if len(found) != 1:
        raise PeerError(
            f"llama-batched-bench: expected one row of {_COLUMNS} numbers, found {len(found)}: "
            f"{last_line(printed)}"
        )
    return float(found[0][_SPEED_TG])


def programs_in(folder: Path) -> dict[str, Path]:
    """Those of PROGRAMS that are in a folder, or in its `bin` or `build/bin`."""
    folder = folder.absolute()
    places = (folder, folder / "bin", folder / "build" / "bin")
    return {
        name: place / name
        for name in PROGRAMS
        for place in places[::-1]
        if (place / name).is_file()
    }
