"""Build octavo's sdist and wheel the way a user's tools do, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, cwd: Path = ROOT, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command that must succeed, free of this run's PYTHONPATH."""
    variables = {**os.environ, **(environ or {})}
    variables.pop("PYTHONPATH", None)
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def pip(
    *arguments: str | Path,
    python: str | Path = sys.executable,
    cwd: Path = ROOT,
    environ: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """One pip command that must succeed. What a build says is on stderr."""
    words = (python, "-m", "pip", "--disable-pip-version-check", *arguments)
    return run(*words, cwd=cwd, environ=environ)


def build_sdist(folder: Path) -> Path:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'build_backend')!r}); "
        "import octavo_build; octavo_build.build_sdist(sys.argv[1])"
    )
    run(sys.executable, "-c", code, folder)
    (sdist,) = folder.glob("octavo-*.tar.gz")
    return sdist


def empty_environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment that holds nothing but pip."""
    run(sys.executable, "-m", "venv", folder / "venv")
    return folder / "venv" / "bin" / "python"
