"""The recipes of CONTRIBUTING, walked: what is added to the sources, in how many files, and that it
works.

A copy of the sources gets the lines that the recipes ask for, is compiled once (its baseline level
only, without optimisation) and runs in processes of its own. Nothing here reaches into the product:
what is counted is the files that had to change.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.packaging.packages import ROOT, run
from tests.recipes.lines import Lines, python_in
from tests.recipes.toy_kv_format import KV_FORMAT
from tests.recipes.toy_op import BATCH_ARRAY, ROW_OP, USE

for needed in ("cmake", "nanobind"):
    pytest.importorskip(needed, reason="`make test-builds` installs the build tools")
pytestmark = pytest.mark.builds


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy, with all that the recipes add to it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("csrc", "cmake", "src", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, tree / name,
                        ignore=shutil.ignore_patterns("*.so", "__pycache__"))  # fmt: skip
    for name in ("CMakeLists.txt", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    for lines in (*ROW_OP, *BATCH_ARRAY, *KV_FORMAT):
        lines.add_to(tree)
    flags = "-DOCTAVO_ISA_LEVELS=base -DCMAKE_BUILD_TYPE=None"
    run("make", "build", f"PYTHON={sys.executable}", f"BUILD={tree / 'build'}",
        f"CMAKE_FLAGS={flags}", cwd=tree)  # fmt: skip
    return tree


def files(recipe: list[Lines]) -> int:
    return len({lines.path for lines in recipe})


def test_a_row_wise_op_touches_six_files_and_an_array_of_the_batch_four(tree: Path) -> None:
    assert (files(ROW_OP), files(BATCH_ARRAY)) == (6, 4)
    (tree / "use.py").write_text(USE)
    said = python_in(tree, "exec(open('use.py').read())")
    assert said == "as the reference says, on base\n"


def test_a_kv_format_touches_three_files(tree: Path) -> None:
    """The tests of the kernels and of the plan take every format that there is; so does LLM."""
    assert files(KV_FORMAT) == 3
    chosen = ["tests/kernels/test_kv_pages.py", "tests/kernels/test_attention_exact.py",
              "tests/kernels/test_attention.py", "tests/planning/test_one_plan.py"]  # fmt: skip
    options = ["-q", "-p", "no:cacheprovider", "-k", "toy8"]
    said = python_in(tree, f"import pytest; sys.exit(pytest.main({[*options, *chosen]}))")
    assert " passed" in said
    assert "failed" not in said
