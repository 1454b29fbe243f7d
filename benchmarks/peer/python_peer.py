"""A peer that is a Python package: it runs in an interpreter of its own, which may be of another
environment, and stays open from turn to turn.

Knows the lines of `worker`. Knows no package.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import IO

from benchmarks.peer.one import Model, NotSupportedError, PeerError, Settings, last_line
from benchmarks.peer.workloads import Workload

_ROOT = Path(__file__).resolve().parents[2]


class PythonPeer:
    def __init__(
        self, name: str, version: str, how: str, command: list[str], model: Model,
        settings: Settings, environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`command` runs a module that ends in `worker.serve`; its environment has more."""
        self.name, self.version, self.how = name, version, how
        self._command = command
        self._model, self._settings = model, settings
        self._environment = dict(environment or {})
        self.process: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None

    def run(self, work: Workload, seed: int) -> float:
        answer = self._ask(json.dumps({"work": asdict(work), "seed": seed}))
        if "unable" in answer:
            raise NotSupportedError(str(answer["unable"]))
        if "failed" in answer:
            self.close()  # what it was asked may still be in it, and would run beside what follows
            raise PeerError(last_line(str(answer["failed"])))
        speed = answer["speed"]
        assert isinstance(speed, float)
        return speed

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self._said):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # of a question that it ended without reading
                        pipe.close()
        self.process = self._said = None

    def _ask(self, question: str) -> dict[str, object]:
        process = self.process or self._open()
        assert process.stdin is not None
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            line = self._answer(process)
        except BrokenPipeError:
            line = ""
        if not line:
            why = self._what_it_said()
            self.close()
            raise PeerError(f"it ended: {why}")
        found: dict[str, object] = json.loads(line)
        return found

    def _answer(self, process: subprocess.Popen[str]) -> str:
        """Its next line, "" if it ended. PeerError if none comes in time."""
        assert process.stdout is not None
        until = monotonic() + self._settings.seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(until - monotonic()):
                self.close()
                raise PeerError(f"no answer in {self._settings.seconds:g} s")
        return process.stdout.readline()

    def _open(self) -> subprocess.Popen[str]:
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # until close
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            env={
                **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                **self._environment,
            },
        )  # fmt: skip
        assert self.process.stdin is not None
        options = {
            "model": str(self._model.path),
            "directory": "" if self._model.directory is None else str(self._model.directory),
            "vocabulary": self._model.vocabulary,
            "threads": self._settings.threads,
            "context": self._settings.context,
            "streams": self._settings.streams,
        }
        self.process.stdin.write(json.dumps(options) + "\n")
        return self.process

    def _what_it_said(self) -> str:
        if self._said is None:
            return "it said nothing"
        self._said.seek(0)
        return last_line(self._said.read())
