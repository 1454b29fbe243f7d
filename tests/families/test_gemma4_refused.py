"""What Gemma 4 files are refused for: fields, keys and tensors that stand for other models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo.errors import ModelError
from tests.families.forms import loaded
from tests.families.gemma4_files import TABLE, directory, gguf_file
from tests.weights.hf.written import changed

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"enable_moe_block": True}, "enable_moe_block is true: only models without experts"),
    ({"vocab_size_per_layer_input": 130}, "only vocab_size, 131, is supported"),
    ({"use_bidirectional_attention": "all"}, "only null or vision is supported"),
    ({"num_kv_shared_layers": 7}, "the last 7 of 7 layers store no K and V"),
    ({"num_kv_shared_layers": 6}, "the last 6 of 7 layers store no K and V"),
    ({"layer_types": ["full_attention"] * 6 + ["sliding_attention"]}, "full_attention at the end"),
    ({"global_head_dim": 63}, "global_head_dim is 63: expected an even number"),
    ({"rope_parameters": None}, "rope_parameters is missing"),
    ({"per_layer_config": {"0": {"head_dim": 64}}}, "for all layers that are full_attention"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=lambda each: str(each)[:30])
def test_what_is_not_computed_is_refused_by_name(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = directory(tmp_path)
    changed(folder, "config.json", **fields)
    with pytest.raises(ModelError, match=said):
        loaded(folder)


REFUSED_KEYS: list[tuple[dict[str, Any], str, str]] = [
    ({"feed_forward_length": [160] * 3 + [320] * 4}, "", "feed_forward_length: other sizes"),
    ({"attention.head_count_kv": [2, 2, 2, 2, 2, 1, 2]}, "", "head_count_kv: other numbers"),
    ({"attention.value_length_swa": 16}, "", "only attention.key_length_swa, 32, is supported"),
    ({}, "rope_freqs.weight", "tensor 'rope_freqs.weight' is missing: expected which pairs turn"),
    ({}, TABLE, "tensor 'per_layer_token_embd.weight' is missing"),
    ({}, "blk.6.layer_output_scale.weight", "layer_output_scale.weight' is missing"),
    ({"expert_count": 8}, "", "expert"),
]


@pytest.mark.parametrize(("keys", "without", "said"), REFUSED_KEYS, ids=lambda e: str(e)[:30])
def test_keys_of_other_models_are_refused_by_name(
    keys: dict[str, Any], without: str, said: str, tmp_path: Path
) -> None:
    path = gguf_file(tmp_path / "m.gguf", "gemma4", without=without, **keys)
    with pytest.raises(ModelError, match=said):
        loaded(path)
