"""Octavo as a process of its own, and programs and shells that run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cli.result import Result

OCTAVO = f'"{sys.executable}" -m octavo'  # in a shell
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "octavo", *arguments]
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "env": ENVIRON, **options}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **given)


def end(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate()
    return Result(process.returncode, out or "", err)


def run(*command: str, environ: Mapping[str, str] = ENVIRON) -> Result:
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


def run_python(program: str, *arguments: str, environ: Mapping[str, str] = ENVIRON) -> Result:
    return run(sys.executable, "-c", program, *arguments, environ=environ)
