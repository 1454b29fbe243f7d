"""Every way to end a program ends it, with its own exit code and without a word.

Streams are closed by the garbage collector then, while Python goes down, and daemon threads are
left inside native code. `make test-newest` runs the same on the newest Python there is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.program_ends import PROGRAMS, expected, run_program


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends(name: str, smollm2_path: Path) -> None:
    assert run_program(name, sys.executable, smollm2_path) == expected(name)
