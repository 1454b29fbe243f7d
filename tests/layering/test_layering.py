"""The package keeps its layers; and the walker that says so sees each kind of breach."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layering.import_walk import BELOW_THE_DOOR, broken_rules

SOURCES = Path(__file__).parents[2] / "src"


def write(root: Path, name: str, text: str) -> None:
    path = root / "octavo" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_every_module_imports_only_from_lower_layers() -> None:
    assert (SOURCES / "octavo" / "__init__.py").is_file()
    assert broken_rules(SOURCES) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "errors.py",
            "import octavo.engine\n",
            "octavo/errors.py:1: octavo.errors imports octavo.engine: "
            "layer 0 may not import from layer 4",
        ),
        (
            "program/fuse.py",
            "import os\nfrom octavo.tokenizer import table\n",
            "octavo/program/fuse.py:2: octavo.program.fuse imports octavo.tokenizer: "
            "the leaves of layer 2 do not know each other",
        ),
        (
            "program/cost.py",
            "from octavo.kernels import native\n",
            "octavo/program/cost.py:1: octavo.program.cost imports octavo.kernels: "
            "only what a kernel runs knows the core",
        ),
        (
            "kv_cache/manager.py",
            "from ..tokenizer.bpe import merge\n",
            "octavo/kv_cache/manager.py:1: octavo.kv_cache.manager imports octavo.tokenizer.bpe: "
            "the leaves of layer 2 do not know each other",
        ),
        (
            "model/llama.py",
            "def build():\n    from octavo import engine\n",
            "octavo/model/llama.py:2: octavo.model.llama imports octavo.engine: "
            "layer 3 may not import from layer 4",
        ),
        (
            "weights/gguf.py",
            "from octavo import __version__\n",
            "octavo/weights/gguf.py:1: octavo.weights.gguf imports octavo: "
            "layer 3 may not import from layer 8",
        ),
        (
            "engine/live.py",
            "from octavo.kv_cache.block_pool import BlockPool\n",
            "octavo/engine/live.py:1: octavo.engine.live imports octavo.kv_cache.block_pool: "
            "KVCache is the only door to the cache",
        ),
        (
            "kv_cache/block_pool.py",
            "import numpy.typing as npt\n",
            "octavo/kv_cache/block_pool.py:1: octavo.kv_cache.block_pool imports numpy.typing: "
            "the bookkeeping holds ids, no arrays",
        ),
        (
            "engine/scheduler.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy as np\n",
            "octavo/engine/scheduler.py:3: octavo.engine.scheduler imports numpy: "
            "the scheduler sees no text and no arrays",
        ),
        (
            "engine/runner.py",
            "import http.client\n",
            "octavo/engine/runner.py:1: octavo.engine.runner imports http.client: "
            "the engine knows no HTTP",
        ),
        (
            "server/routes.py",
            "from octavo.engine.engine import Engine\n",
            "octavo/server/routes.py:1: octavo.server.routes imports octavo.engine.engine: "
            "the server's only door is async_engine",
        ),
        ("drawer.py", "", "octavo/drawer.py: 'drawer' is in no layer: add it"),
        (
            "cli/main.py",
            "import octavo.drawer\n",
            "octavo/cli/main.py:1: octavo.cli.main imports octavo.drawer: 'drawer' is in no layer",
        ),
    ],
)
def test_a_breach_is_named_with_its_line_and_reason(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    write(tmp_path, "engine/__init__.py", "")
    write(tmp_path, name, text)
    assert broken_rules(tmp_path) == [complaint]


def test_the_server_sees_no_other_module_of_serving_than_its_door() -> None:
    modules = {f"octavo.serving.{p.stem}" for p in (SOURCES / "octavo" / "serving").glob("[a-z]*")}
    assert modules - set(BELOW_THE_DOOR) == {"octavo.serving.async_engine"}


def test_what_the_design_allows_passes(tmp_path: Path) -> None:
    write(tmp_path, "__init__.py", "from octavo.serving.llm import LLM\n")
    write(tmp_path, "errors.py", "import enum\n")
    write(tmp_path, "request.py", "from octavo.sampling_params import SamplingParams\n")
    write(tmp_path, "program/fuse.py", "import numpy as np\nfrom .ops import Op\n")
    write(tmp_path, "kv_cache/block_pool.py", "from octavo.errors import OctavoError\n")
    write(tmp_path, "engine/runner.py", "import numpy\nfrom octavo.kernels import run\n")
    write(tmp_path, "engine/scheduler.py", "from octavo.kv_cache.manager import Manager\n")
    write(
        tmp_path, "cli/__init__.py", "from octavo import __version__\nimport octavo.serving.llm\n"
    )
    write(tmp_path, "__main__.py", "from octavo.cli import main\n")
    assert broken_rules(tmp_path) == []
