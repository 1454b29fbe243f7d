"""A server in a process of its own, so that what it holds can be told from what its clients hold.

Its engine fails now and then, as only tests want it: `python -m tests.server.apart MODEL FILE`
serves until a signal comes, and adds a byte to FILE for each failure that ends what is open.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from octavo import LLM, AsyncEngine
from octavo.engine import update
from octavo.engine.step import StepResult
from octavo.server import history
from octavo.server.admission import PROMPTS_WAITING
from octavo.server.config import ServerConfig
from octavo.server.serve import serve
from tests.cli.process import environ
from tests.gate import PATIENCE
from tests.server.live import Client, until
from tests.serving.stories import assert_nothing_held

_KEPT = 100  # records of steps and of requests: so few that they are all there soon
_FAILS_EVERY = 97  # steps; every third time twice in a row, which ends what is open
_HELD = ("octavo:streams", "vllm:num_requests_running", "vllm:num_requests_waiting",
         "octavo:kv_used_bytes")  # fmt: skip


class Held(NamedTuple):
    """What a process holds."""

    memory: int  # bytes that it alone has, swapped ones too
    files: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory:,} bytes, {self.files} files, {self.threads} threads"


class Apart(Client):
    """The server from outside. Use it as a context; at the end it must have held nothing more."""

    def __init__(self, model: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._failed = Path(self._folder.name, "failed")
        self._failed.touch()
        command = [sys.executable, "-m", "tests.server.apart", model, str(self._failed)]
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([f"{root}/src", root])
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**environ(), "PYTHONPATH": path}
        )
        assert self._process.stdout is not None
        self.port = int(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._process as process, self._folder:
            process.send_signal(signal.SIGTERM)
            try:
                told, _ = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        if kind is None:
            assert (process.returncode, told) == (0, "whole\n")

    @property
    def failures(self) -> int:
        """How many there were of those that end what is open."""
        return self._failed.stat().st_size

    def until_idle(self) -> None:
        until(lambda: self.metric("octavo:connections") == 1)  # which asks
        until(lambda: not any(map(self.metric, _HELD)))

    def at_rest(self) -> Held:
        """What it holds with its cache cleared and the memory of it given back."""
        self.post("/v1/cache/clear", {})
        until(lambda: self.metric("octavo:kv_empty_bytes") == 0)
        assert self.metric("octavo:kv_kept_bytes") == 0
        until(self._is_steady)
        return self.held()

    def _is_steady(self) -> bool:
        """The heap is given back after the blocks are, and so is the connection that asked."""
        held = self.held()
        time.sleep(0.2)
        return held == self.held()

    def held(self) -> Held:
        own = Path(f"/proc/{self._process.pid}")
        lines = (own / "status").read_text().splitlines()
        sizes = [each.split()[1] for each in lines if each.startswith(("RssAnon", "VmSwap"))]
        files, threads = (sum(1 for _ in (own / name).iterdir()) for name in ("fd", "task"))
        return Held(sum(map(int, sizes)) << 10, files, threads)

    def metric(self, name: str) -> float:
        """A gauge of /metrics."""
        lines = self.get("/metrics").body.decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def failing(step: Callable[..., StepResult], tell: Callable[[], object]) -> Callable[..., Any]:
    """A step that raises now and then."""
    steps, again = 0, False

    def stepped(*given: Any) -> StepResult:
        nonlocal steps, again
        steps += 1
        if again:
            again = False
            tell()
            raise RuntimeError("injected, twice in a row")
        if steps % _FAILS_EVERY == 0:
            again = steps % (3 * _FAILS_EVERY) == 0
            raise RuntimeError("injected")
        return step(*given)

    return stepped


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("failed", type=Path)
    given = parser.parse_args()
    llms: list[LLM] = []

    def load() -> tuple[AsyncEngine, str]:
        # Memory of a cache that is cleared goes back at once, not after some seconds of rest.
        llm = LLM(given.model, threads=1, block_size=16, max_batch_tokens=512, kv_idle=0.1)
        llms.append(llm)
        engine: Any = llm.loop.engine
        engine.step = failing(engine.step, lambda: os.write(failed.fileno(), b"."))
        return AsyncEngine(llm, max_waiting=PROMPTS_WAITING), "model"

    class Said:
        def ready(self, address: str, name: str) -> None:
            print(address.rpartition(":")[2], flush=True)

        def note(self, line: str) -> None:
            pass

        def close(self) -> None:
            pass

    with given.failed.open("ab") as failed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "NUM_RECORDS", _KEPT)
        patch.setattr(history, "MOST", _KEPT)
        serve(ServerConfig(port=0, max_body=256 << 10), load, Said())
    assert_nothing_held(*llms)
    print("whole")


if __name__ == "__main__":
    main()
