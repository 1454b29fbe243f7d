"""Builds of the core that take minutes; each runs only by the `make` target that its marker names:
with ziglang's compiler, for another machine, and for the newest Python of this one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import ROOT, build_sdist, empty_environment, pip, run
from tests.program_ends import PROGRAMS, expected, run_program

AARCH64 = 183  # e_machine of an ELF file


@pytest.mark.zig
@pytest.mark.needs_index
def test_a_path_without_a_compiler_builds_with_ziglang(tmp_path: Path) -> None:
    """The build fetches it by itself, and the result imports."""
    bare = tmp_path / "bare-path"
    bare.mkdir()
    assert "CXX" not in os.environ, "unset CXX: this test is about having no compiler"
    sdist = build_sdist(tmp_path)
    built = pip(
        *("wheel", "--verbose", "--no-deps", "--wheel-dir", tmp_path, sdist),
        cwd=tmp_path,
        environ={"PATH": str(bare)},
    )
    assert "no C++20 compiler found: using ziglang's" in built.stdout + built.stderr
    (wheel,) = tmp_path.glob("octavo-*.whl")
    python = empty_environment(tmp_path)
    pip("install", "-q", wheel, python=python, cwd=tmp_path)
    code = "from octavo import kernels; print(kernels.native.__file__, kernels.available_isas())"
    said = run(python, "-c", code, cwd=tmp_path).stdout
    assert said.startswith(str(python.parents[1]))
    assert "'base'" in said


@pytest.mark.cross
def test_the_core_builds_for_aarch64(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Zig, on any machine: compiled and linked, and not run."""
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
    """As they do on the one that runs the tests, if there is a newer one."""
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
