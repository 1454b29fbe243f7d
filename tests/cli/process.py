"""Octavo as a process of its own, and programs and shells that run it. One that does not end is
ended, and tells its stacks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cli.result import Result
from tests.gate import PATIENCE

OCTAVO = f'"{sys.executable}" -m octavo'  # in a shell
SOURCE = str(Path(__file__).parents[2] / "src")

_LIFE = 2 * PATIENCE  # of a process: long before that a test has ended it


def environ() -> dict[str, str]:
    """Return what a process of a test is told: the tests' own home, not the user's."""
    return {**os.environ, "PYTHONPATH": SOURCE}


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Whoever reads its pipes meets their end when its time is over."""
    command = [sys.executable, "-X", "faulthandler", "-m", "octavo", *arguments]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "env": environ(), **options}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **given)
    watch = threading.Timer(_LIFE, process.send_signal, [signal.SIGABRT])  # it tells its stacks
    watch.daemon = True
    watch.start()
    return process


def end(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=_LIFE + PATIENCE)
    assert process.returncode != -signal.SIGABRT, f"it did not end in {_LIFE} s: {err}"
    return Result(process.returncode, out or "", err)


def run(*command: str, env: Mapping[str, str] | None = None) -> Result:
    told = environ() if env is None else env
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=_LIFE)
    return Result(done.returncode, done.stdout, done.stderr)


def run_python(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return run(sys.executable, "-c", program, *arguments, env=env)
