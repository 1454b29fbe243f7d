"""Where no compiler is to be found, the build fetches ziglang's by itself and the result imports.

Takes minutes and needs the package index, so only `make test-zig` runs it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.packaging.packages import build_sdist, empty_environment, pip, run


@pytest.mark.zig
@pytest.mark.needs_index
def test_a_path_without_a_compiler_builds_with_ziglang(tmp_path: Path) -> None:
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
