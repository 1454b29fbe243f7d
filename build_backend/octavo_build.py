"""Build backend: scikit-build-core, plus a compiler for machines that have none.

`build-system.requires` cannot depend on what the machine has, but the hooks below can: they ask for
the `ziglang` wheel exactly when no C++20 compiler works, and build with it then.
"""

from __future__ import annotations

import compileall
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scikit_build_core import build as scikit_build
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

import octavo_compiler as compiler

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ZIG_FOLDER = Path("build", "zig")

Settings = dict[str, Any] | None  # PEP 517's config_settings


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return scikit_build.get_requires_for_build_wheel(config_settings) + compiler_requirement()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return scikit_build.get_requires_for_build_editable(config_settings) + compiler_requirement()


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    with working_compiler():
        return scikit_build.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    with working_compiler():
        wheel = scikit_build.build_editable(wheel_directory, config_settings, metadata_directory)
    compile_sources(Path("src"))
    return wheel


def compile_sources(folder: Path) -> None:
    """Write bytecode beside sources that are used in place, as pip does for those of a wheel: where
    Python may write none (PYTHONDONTWRITEBYTECODE), each start would compile them all."""
    compileall.compile_dir(folder, quiet=2)


def compiler_requirement() -> list[str]:
    return [] if compiler.find_compiler(os.environ) else [compiler.ZIG_REQUIREMENT]


@contextmanager
def working_compiler() -> Iterator[None]:
    """Point CXX at a compiler that works for the time of one build."""
    before = dict(os.environ)
    found = compiler.find_compiler(before)
    if found is None:
        compiler.say(compiler.ZIG_NOTICE)
        chosen = compiler.write_zig_toolchain(ZIG_FOLDER.resolve())
        chosen["CMAKE_ARGS"] = f"{before.get('CMAKE_ARGS', '')} {chosen['CMAKE_ARGS']}".strip()
    else:
        chosen = {"CXX": found}
    os.environ.update(chosen)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
