"""Which level runs: the best, or the one OCTAVO_ISA names; an error names the choices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import octavo
from octavo.kernels import available_isas
from tests.kernels.levels import ISAS

PACKAGE_ROOT = str(Path(octavo.__file__).parents[1])
LEVELS = ("base", "avx2", "avxvnni", "avx512", "avx512bf16", "amx")


def default_isa(**environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter prints the level it chose: the choice is made at import."""
    code = "from octavo.kernels import default_isa; print(default_isa())"
    inherited = {key: value for key, value in os.environ.items() if key != "OCTAVO_ISA"}
    env = inherited | {"PYTHONPATH": PACKAGE_ROOT} | environment
    # -S: site-packages may hold a hook of an editable install, which would find octavo first.
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def refusal(**environment: str) -> str:
    """The last line of what an import that fails says."""
    run = default_isa(**environment)
    assert run.returncode != 0
    return run.stderr.strip().splitlines()[-1]


def test_base_is_always_there_and_levels_rise() -> None:
    assert available_isas()[0] == "base"
    ranks = [LEVELS.index(isa) for isa in available_isas()]
    assert ranks == sorted(ranks)


def test_the_fastest_level_is_the_default() -> None:
    """The highest one, but for Intel's bf16 dots, which are slower than its fma."""
    fastest = available_isas()[-1]
    if fastest == "avx512bf16" and "GenuineIntel" in Path("/proc/cpuinfo").read_text():
        fastest = "avx512"
    for environment in ({}, {"OCTAVO_ISA": ""}):
        assert default_isa(**environment).stdout.strip() == fastest


@pytest.mark.parametrize("isa", ISAS)
def test_octavo_isa_forces_any_level_the_machine_has(isa: str) -> None:
    assert default_isa(OCTAVO_ISA=isa).stdout.strip() == isa


@pytest.mark.parametrize("isa", ["avx1024", *sorted(set(LEVELS) - set(available_isas()))])
def test_a_level_that_is_not_there_is_one_clear_error_at_import(isa: str) -> None:
    assert refusal(OCTAVO_ISA=isa) == (
        f"octavo.errors.KernelError: OCTAVO_ISA={isa}: this build on this machine has "
        f"{', '.join(available_isas())}; unset OCTAVO_ISA or set it to one of these"
    )


def test_a_missing_core_is_a_kernel_error_that_says_how_to_build(tmp_path: Path) -> None:
    package = tmp_path / "octavo"
    (package / "kernels").mkdir(parents=True)
    source = Path(octavo.__file__).parent
    for name in ("errors.py", "kernels/__init__.py"):
        (package / name).write_text((source / name).read_text())
    (package / "__init__.py").write_text("")
    last = refusal(PYTHONPATH=str(tmp_path))
    assert last.startswith("octavo.errors.KernelError: the compiled core of Octavo does not load")
    assert last.endswith("build it with `make build` or `pip install .`")
