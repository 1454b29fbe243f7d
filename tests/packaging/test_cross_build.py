"""Zig builds the core for aarch64 Linux on any machine: compiled and linked, and not run.

Takes minutes and needs ziglang, so only `make cross-aarch64` runs it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import ROOT, run

AARCH64 = 183  # e_machine of an ELF file


@pytest.mark.cross
def test_the_core_builds_for_aarch64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "build_backend"))
    from octavo_compiler import write_zig_toolchain

    build = ROOT / "build" / "aarch64"
    chosen = write_zig_toolchain(build / "tools", machine="aarch64")
    chosen["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for ninja
    run(
        *(sys.executable, "-m", "cmake", "-S", ROOT, "-B", build, "-G", "Ninja"),
        *shlex.split(chosen.pop("CMAKE_ARGS")),
        *("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        f"-DPython_EXECUTABLE={sys.executable}",
        environ=chosen,
    )
    run(sys.executable, "-m", "cmake", "--build", build, environ=chosen)
    (core,) = build.glob("_native.*so")
    assert int.from_bytes(core.read_bytes()[18:20], "little") == AARCH64
