"""Falcon as it was published first: the same tensors, other names in config.json.

transformers has no such class; its files are held against those of the class that took its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.families.directories import config_of, golden_of, write_directory
from tests.families.forms import loaded, logits
from tests.weights.hf.written import write_json

THEIRS = {"num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}
OF_40B: dict[str, Any] = {"model_type": "RefinedWeb", "n_head_kv": 2}


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def old(path: Path, variant: str, **more: Any) -> Path:
    """The variant with the config.json of 2023; a change to `...` takes a field away."""
    new = ("num_kv_heads", "new_decoder_architecture")
    config = {
        THEIRS.get(name, name): each for name, each in config_of(variant).items() if name not in new
    }
    config |= {"architectures": ["RWForCausalLM"], "model_type": "RefinedWebModel", **more}
    config = {name: each for name, each in config.items() if each is not ...}
    write_json(directory(path, variant) / "config.json", config)
    return path


@pytest.mark.parametrize(
    ("variant", "more"),
    [
        ("falcon", {}),
        ("falcon", {"architectures": ...}),
        ("falcon-by-head", {"multi_query": ...}),
        ("falcon-in-turn", {"parallel_attn": ...}),
        ("falcon-rw", {}),
        ("falcon-by-group", {"multi_query": ..., **OF_40B}),
        ("falcon-by-group", {"architectures": ..., **OF_40B}),
    ],
)
def test_it_is_the_same_model(variant: str, more: dict[str, Any], tmp_path: Path) -> None:
    got = loaded(old(tmp_path / "old", variant, **more))
    assert np.array_equal(logits(got), logits(loaded(directory(tmp_path / "new", variant))))
