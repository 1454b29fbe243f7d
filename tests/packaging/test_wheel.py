"""A wheel and an sdist built here hold what they should; the wheel runs in an empty environment.

The build reuses `build/<python>`, so it links rather than compiles after an in-place build.
"""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

import octavo
from octavo.server.page import FILES
from tests.packaging.packages import build_sdist, empty_environment, pip, run

pytest.importorskip("scikit_build_core", reason="`make test-builds` installs the build tools")
pytestmark = pytest.mark.builds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ".")
    (built,) = folder.glob("octavo-*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_core_and_nothing_else(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == octavo.__version__  # users read it there
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {"octavo", f"octavo-{octavo.__version__}.dist-info"}
    assert {name.split("/")[0] for name in names} == folders
    cores = [name for name in names if name.startswith("octavo/kernels/_native.") and ".so" in name]
    assert len(cores) == 1
    assert {"octavo/py.typed", "octavo/bench/sherlock_holmes.txt"} <= set(names)
    assert {f"octavo/server/page/{file.name}" for file in FILES.values()} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".cpp", ".h", ".gguf", ".parquet"))]


def test_the_sdist_can_build_and_carries_no_tests_or_benchmarks(tmp_path: Path) -> None:
    sdist = build_sdist(tmp_path)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "CMakeLists.txt", "LICENSE", "csrc/bind/module.cpp"}
    needed |= {"build_backend/octavo_build.py", "src/octavo/__init__.py", "cmake/flags.cmake"}
    needed |= {f"src/octavo/server/page/{file.name}" for file in FILES.values()}
    assert needed <= names
    extra = {"tests", "benchmarks", "examples", "build", ".venv", "docs"}
    assert {name.split("/")[0] for name in names} & extra == set()
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.needs_index
def test_the_wheel_installs_into_an_empty_environment_and_runs(wheel: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path)
    pip("install", "-q", wheel, python=python, cwd=tmp_path)
    code = "from octavo.kernels import _native; print(_native.__file__)"
    core = Path(run(python, "-c", code, cwd=tmp_path).stdout.strip())
    assert core.is_relative_to(python.parents[1])
    said = run(python.with_name("octavo"), "--version", cwd=tmp_path).stdout
    assert octavo.__version__ in said
    installed = pip("list", "--format=freeze", python=python, cwd=tmp_path).stdout.lower()
    names = {line.partition("==")[0] for line in installed.splitlines()}
    assert names & {"torch", "pytest", "nanobind", "cmake", "ziglang"} == set()
