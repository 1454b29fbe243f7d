"""The same directory read by Octavo and by transformers: float32 logits of one text.

Runs where torch and transformers are. Every number is made by two readers of one config.json.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.kernels import native
from octavo.model.config import ModelConfig
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import load_weights, reference_weights
from tests.families.checkpoints import CONFIGS, weights
from tests.families.drawn import TOKENS
from tests.tiny import TINY, TinyModel, all_logits, make_runner
from tests.weights.hf.written import changed, write_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

POOL = native.ThreadPool(2)
LLAMA = replace(TINY, vocab_size=131, rope_style="half", qkv_bias=False)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
CASES: dict[str, tuple[ModelConfig, dict[str, Any]]] = {
    "llama": (LLAMA, {}),
    "llama, tied, positions scaled": (replace(LLAMA, rope_scale=4.0, tied_head=True), {}),
    "llama 3": (LLAMA, LLAMA3),
    "llama, dynamic": (LLAMA, DYNAMIC),
    "mistral": (LLAMA, MISTRAL),
    "qwen2": (replace(LLAMA, architecture="qwen2", qkv_bias=True, tied_head=True), {}),
    **{name: (config, {}) for name, config in CONFIGS.items()},
}


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize("name", CASES)
def test_transformers_reads_the_same_model(tmp_path: Path, name: str, form: Any) -> None:
    config, changes = CASES[name]
    write_model(tmp_path, config, weights(config), form=form, shards=2)
    if "rope_type" in changes and form == "old":
        changes = {"rope_scaling": changes}
    elif "rope_type" in changes:
        changes = {"rope_parameters": {**changes, "rope_theta": config.rope_base}}
    changed(tmp_path, "config.json", **changes)
    header = read_header(tmp_path)
    specs = header.program().weights()
    found = TinyModel(
        header.program(), load_weights(header, specs, POOL), reference_weights(header, specs)
    )
    ours = all_logits(make_runner(found, POOL, kv_dtype="f32", num_blocks=8), TOKENS)
    theirs = (
        transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float32, attn_implementation="eager"
        )
        .eval()(torch.tensor([TOKENS]), use_cache=False)
        .logits[0]
        .detach()
        .numpy()
    )
    assert (np.abs(ours - theirs).max(1) <= 2e-5 * np.abs(theirs).max(1)).all()
