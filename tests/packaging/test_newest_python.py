"""On the newest Python of this machine, if it is newer than the one that runs the tests: Octavo
builds for it, and programs end there as they do here.

Compiles the core once more, so only `make test-newest` runs it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import ROOT, pip, run
from tests.program_ends import PROGRAMS, expected, run_program


def newest() -> Path | None:
    """Looked for on the PATH and beside this one, where version managers keep theirs."""
    found = {sys.version_info[:2]: Path(sys.executable)}
    beside = Path(sys.base_prefix).parent.glob("*/bin/python3")
    named = ["python3", *(f"python3.{minor}" for minor in range(12, 20))]
    for python in [*named, *map(str, beside)]:
        try:
            said = subprocess.run([python, "--version"], capture_output=True, text=True).stdout
        except OSError:
            continue
        version = re.fullmatch(r"Python 3\.(\d+)\.\d+", said.strip())  # no candidate releases
        if version:
            found.setdefault((3, int(version[1])), Path(python))
    best = max(found)
    return found[best] if best > sys.version_info[:2] else None


@pytest.mark.newest
@pytest.mark.needs_index
def test_programs_end_on_the_newest_python(tmp_path: Path, smollm2_path: Path) -> None:
    python = newest()
    if python is None:
        pytest.skip(f"no Python here is newer than {sys.version.split()[0]}")
    run(python, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip("install", "-q", ROOT, python=python, cwd=tmp_path)
    wrong = {}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in PROGRAMS:
        became = run_program(name, python, smollm2_path, environ)
        if became != expected(name):
            wrong[name] = became
    assert wrong == {}
