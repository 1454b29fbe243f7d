"""Where no compiler is to be found, the build fetches ziglang's by itself and the result imports.

Takes minutes and needs the package index, so only `make test-zig` runs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import build_sdist, pip, run


@pytest.mark.zig
@pytest.mark.needs_index
def test_a_path_without_a_compiler_builds_with_ziglang(tmp_path):
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
    target = tmp_path / "site"
    pip("install", "-q", "--no-deps", "--target", target, wheel, cwd=tmp_path)
    code = f"import sys; sys.path.insert(0, {str(target)!r}); " + (
        "from octavo.kernels import _native; print(_native.__file__)"
    )
    core = Path(run(sys.executable, "-c", code, cwd=tmp_path).stdout.strip())
    assert core.is_relative_to(target)
