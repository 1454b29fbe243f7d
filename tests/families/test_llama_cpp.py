"""The GGUF files that our tests write against llama.cpp's own conversion of the same directories.

`llama_cpp.json` is its converter's (`make_llama_cpp`); other tests hold what Octavo makes of such
files against the directories.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import TensorInfo
from tests.families import expert_files, test_gguf, test_gpt_gguf, test_phi3
from tests.families.directories import config_of
from tests.families.llama_cpp import GOLDEN, contents

FILES: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_bytes())


def written(path: Path, variant: str) -> Path:
    writer: Callable[[Path, str], Path] = test_gguf.gguf_file
    if variant in test_gpt_gguf.FILES:
        writer = test_gpt_gguf.gguf_file
    elif variant in test_phi3.VARIANTS:
        writer = test_phi3.gguf_file
    elif config_of(variant)["model_type"] in expert_files.ARCHITECTURES:
        writer = expert_files.gguf_file
    return writer(path, variant)


@pytest.mark.parametrize("variant", FILES)
def test_names_shapes_and_values_of_tensors_are_those_of_its_converter(
    variant: str, tmp_path: Path
) -> None:
    found = contents(written(tmp_path / "model.gguf", variant))
    assert found["architecture"] == FILES[variant]["architecture"]
    if variant == "gpt2":  # of which its older versions write a head, as ours do
        del found["tensors"]["output.weight"]
    assert found["tensors"] == FILES[variant]["tensors"]


@pytest.mark.parametrize("variant", FILES)
def test_its_keys_are_ours_and_are_read(variant: str, tmp_path: Path) -> None:
    """Ours are more: it leaves out windows of some families (`make_llama_cpp`)."""
    keys, tensors = FILES[variant]["keys"], FILES[variant]["tensors"]
    assert keys.items() <= contents(written(tmp_path / "model.gguf", variant))["keys"].items()
    table = {n: TensorInfo(n, tuple(s), GGMLType.F32, 0, 0) for n, (s, _) in tensors.items()}
    read = {k: np.array(v) if isinstance(v, list) else v for k, v in keys.items()}
    config = model_config({"general.architecture": FILES[variant]["architecture"], **read}, table)
    assert config.unsupported == ""
