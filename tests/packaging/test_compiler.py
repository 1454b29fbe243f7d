"""The build takes the first compiler that works, and asks for ziglang exactly when none does."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.packaging.packages import ROOT

# A stand-in compiler that checks it was given a C++20 source and a library to write.
WORKS = 'case "$*" in *-std=c++20*probe.cpp*-o*probe.so) exit 0;; esac; exit 2'


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The build's own module, imported as the build imports it."""
    monkeypatch.syspath_prepend(str(ROOT / "build_backend"))
    import octavo_compiler

    yield octavo_compiler
    sys.modules.pop("octavo_compiler", None)


def put(folder: Path, name: str, line: str = WORKS) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_the_first_of_cpp_gpp_clangpp_that_works_wins(compiler: ModuleType, tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert compiler.find_compiler(environ) is None
    put(tmp_path, "c++", "exit 1")
    assert compiler.find_compiler(environ) is None
    for name in ("clang++", "g++", "c++"):
        put(tmp_path, name)
        assert compiler.find_compiler(environ) == name


def test_cxx_wins_and_may_hold_arguments(compiler: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "c++")
    mine = put(tmp_path, "mine", f'[ "$1" = --launch ] || exit 1; {WORKS}')
    environ = {"PATH": str(tmp_path), "CXX": f"{mine} --launch"}
    assert compiler.find_compiler(environ) == f"{mine} --launch"


def test_a_cxx_that_fails_is_an_error_and_no_switch(compiler: ModuleType, tmp_path: Path) -> None:
    put(tmp_path, "c++")
    with pytest.raises(SystemExit) as refused:
        compiler.find_compiler({"PATH": str(tmp_path), "CXX": "no-such-compiler"})
    assert str(refused.value) == (
        "octavo: CXX=no-such-compiler cannot compile C++20 (gcc >= 12 or clang >= 15 can): "
        "set CXX to one that can, or unset it to let the build choose"
    )


def test_the_probe_is_real_cpp20(compiler: ModuleType) -> None:
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("this machine has no compiler")
    folder, name = os.path.split(found)
    environ = {"PATH": folder}
    assert compiler.compiles(name, environ)
    assert not compiler.compiles(f"{name} -D_BREAK_ -include /no/such/header", environ)


def test_the_build_requires_ziglang_only_without_a_compiler(
    compiler: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scikit_build_core")
    monkeypatch.chdir(ROOT)
    import octavo_build

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel = octavo_build.get_requires_for_build_wheel
    hooks = (wheel, octavo_build.get_requires_for_build_editable)
    assert all(compiler.ZIG_REQUIREMENT in hook() for hook in hooks)
    put(tmp_path, "c++")
    assert not any(compiler.ZIG_REQUIREMENT in hook() for hook in hooks)
    sys.modules.pop("octavo_build", None)


def test_the_zig_toolchain_is_four_wrappers_around_the_wheel(
    compiler: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "site" / "ziglang"
    wheel.mkdir(parents=True)
    (wheel / "__init__.py").write_text("")
    put(wheel, "zig", 'echo "zig $*"')
    monkeypatch.syspath_prepend(str(wheel.parent))
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name: str(tmp_path / "python3"))
    folder = tmp_path / "tool chain"
    chosen = compiler.write_zig_toolchain(folder)
    assert chosen["CXX"] == str(folder / "c++")
    assert shlex.split(chosen["CMAKE_ARGS"])[0] == f"-DCMAKE_AR={folder / 'ar'}"
    assert sorted(path.name for path in folder.iterdir()) == ["ar", "c++", "cc", "ranlib"]
    said = subprocess.run([chosen["CXX"], "-c", "a b.cpp"], capture_output=True, text=True)
    assert said.stdout == f"zig c++ -target {compiler.zig_target()} -c a b.cpp\n"


def test_zig_finds_the_headers_of_a_python_whose_parts_lie_apart(
    compiler: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian has them: one pyconfig.h includes <x86_64-linux-gnu/python3.13/pyconfig.h>."""
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name: str(tmp_path / "python3.13"))
    monkeypatch.setattr(compiler.sysconfig, "get_config_var", lambda name: "a-linux-gnu")
    assert compiler.python_headers() == ""
    apart = tmp_path / "a-linux-gnu" / "python3.13" / "pyconfig.h"
    apart.parent.mkdir(parents=True)
    apart.touch()
    assert compiler.python_headers() == f" -idirafter {tmp_path}"


def test_no_compiler_and_no_ziglang_is_one_clear_error(
    compiler: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"no C\+\+20 compiler found and the ziglang wheel is not"):
        compiler.write_zig_toolchain(tmp_path)
