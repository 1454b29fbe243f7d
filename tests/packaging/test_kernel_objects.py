"""Every kernel file is compiled once per level it is for, with its flags, and shares no name.

A function that two levels define under one name is merged by the linker: if it keeps the AVX-512
copy, an older CPU dies of an illegal instruction. So each level's objects may define only names in
the level's own namespace. Reads what the last build left behind.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.packaging.packages import ROOT

BUILD = ROOT / "build" / sys.implementation.cache_tag
KERNEL_OBJECT = re.compile(r"kernels_(\w+)\.dir/csrc/kernels/([\w/]+)\.cpp\.o$")
Commands = list[dict[str, str]]
Objects = dict[str, dict[str, str]]  # level -> source name -> object path


@pytest.fixture(scope="module")
def commands() -> Commands:
    """The compile commands of the last build; empty is not possible once it has configured."""
    path = BUILD / "compile_commands.json"
    if not path.is_file():
        pytest.skip(f"no build in {BUILD.relative_to(ROOT)}: run `make build`")
    found: Commands = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def kernel_objects(commands: Commands) -> Objects:
    found: Objects = defaultdict(dict)
    for command in commands:
        match = KERNEL_OBJECT.search(command["output"])
        if match:
            found[match[1]][match[2]] = command["output"]
    return found


def test_each_source_is_compiled_for_each_level(kernel_objects: Objects) -> None:
    assert "base" in kernel_objects
    of_tiles = {"amx", "amx_plain"} & kernel_objects.keys()
    for levels in (of_tiles, kernel_objects.keys() - of_tiles):
        sources = [set(kernel_objects[level]) for level in levels]
        assert all(each and each == sources[0] for each in sources)


def test_no_file_is_compiled_for_this_machine_only_or_with_fast_maths(commands: Commands) -> None:
    ours = [command for command in commands if "/csrc/" in command["file"]]
    assert ours
    for command in ours:
        words = command["command"].split()
        assert "-march=native" not in words, command["file"]
        assert "-ffast-math" not in words, command["file"]
        assert "-ffp-contract=off" in words, command["file"]


def test_each_level_defines_names_only_in_its_own_namespace(kernel_objects: Objects) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm (binutils)")
    seen = 0
    for level, objects in kernel_objects.items():
        for name, path in objects.items():
            assert (BUILD / path).is_file(), f"{path} is not built: run `make build`"
            command = [nm, "-C", "--defined-only", "--extern-only", str(BUILD / path)]
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for line in filter(None, listed.splitlines()):
                seen += 1
                symbol = line.split(maxsplit=2)[2]
                assert f"octavo::{level}::" in symbol, f"{name}.cpp at {level} defines {symbol}"
    assert seen > 0
