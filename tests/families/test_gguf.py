"""The families' tiny models as GGUF files: the same logits as of their directories.

Keys, names and order of rows are those that llama.cpp's converter writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.forms import drawn, loaded, logits
from tests.families.gguf_files import interleaved, llama_cpp_names, write_gguf

LLAMA = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "shared_mlp.output_linear": "ffn_down",
}  # fmt: skip
GEMMA3 = {
    **LLAMA, "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
OLMO2 = {
    **LLAMA, "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
NAMES = {"gemma2": GEMMA3, "gemma3": GEMMA3, "olmo2": OLMO2}
PERMUTED = ("llama", "smollm3", "granite", "mistral3")
ADDED_TO_1 = ("gemma2", "gemma3")

# variant -> architecture, and the keys that its config.json does not have under a name of its own
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-biased": ("llama", {}),
    "mistral-windowed": ("llama", {}),
    "qwen2-windows": ("qwen2", {"attention.sliding_window_pattern": [False, True, True, True]}),
    "qwen3": ("qwen3", {}),
    "qwen3-silent-head": ("qwen3", {"attention.key_length": 128, "attention.value_length": 128}),
    "smollm3-interval": ("smollm3", {}),
    "gemma3-irregular": (
        "gemma3",
        {
            "attention.sliding_window_pattern": [False, True, True, False, False, True, True],
            "rope.freq_base": 1e6,
            "rope.freq_base_swa": 1e4,
        },
    ),
    "gemma2": ("gemma2", {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}),
    "gemma2-silent": ("gemma2", {"rope.freq_base": 10000.0}),
    "granite": (
        "granite",
        {
            "attention.scale": 0.2,
            "embedding_scale": 12.0,
            "logit_scale": 8.0,
            "residual_scale": 0.22,
        },
    ),
    "granite-hybrid": (
        "granite",
        {
            "attention.head_count_kv": [2, 2, 2],
            "attention.scale": 0.2,
            "embedding_scale": 12.0,
            "expert_count": 0,
            "expert_shared_feed_forward_length": 160,
            "feed_forward_length": 160,
            "logit_scale": 8.0,
            "residual_scale": 0.22,
            "rope.scaling.finetuned": True,
            "ssm.conv_kernel": 4,
            "ssm.group_count": 1,
            "ssm.inner_size": 192,
            "ssm.state_size": 256,
            "ssm.time_step_rank": 3,
        },
    ),
    "ministral3": (
        "mistral3",
        {
            "attention.temperature_scale": 0.4,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 32.0,
            "rope.scaling.original_context_length": 16,
            "rope.scaling.yarn_beta_fast": 32.0,
            "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": (
        "olmo2",
        {
            "attention.sliding_window_pattern": [True, True, True, False, True],
            "rope.freq_base_swa": 500000.0,
            "rope.scaling.yarn_attn_factor": 1.2079441541679836,
            "rope.scaling.yarn_beta_fast": 32.0,
            "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 64,
        },
    ),
    "llama-yarn": (
        "llama",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 64,
        },
    ),
    "llama-linear": ("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}),
    "llama-llama3": ("llama", {}),  # the converter writes no keys, but a tensor
    "llama-tied-padded": ("llama", {}),
    "mistral-head-24": ("llama", {}),
    "qwen2-head-12": ("qwen2", {}),
    "gemma3-old-linear": (
        "gemma3",
        {
            "attention.sliding_window_pattern": 3,
            "rope.freq_base_swa": 1e4,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "gemma3-full-tied": (
        "gemma3",
        {"attention.sliding_window_pattern": [False] * 7, "rope.freq_base": 1e6},
    ),
}


def gguf_file(path: Path, variant: str) -> Path:
    config, (architecture, more) = config_of(variant), FILES[variant]
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    rope = config.get("rope_parameters", {})
    metadata: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": heads["q"],
        "attention.head_count_kv": heads["k"],
        "attention.layer_norm_rms_epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "rope.freq_base": float(config.get("rope_theta", rope.get("rope_theta", 0))),
    }
    if "head_dim" in config:
        metadata |= dict.fromkeys(("attention.key_length", "attention.value_length"),
                                  config["head_dim"])  # fmt: skip
    if architecture in PERMUTED:  # those that llama.cpp converts as Llamas
        metadata["vocab_size"] = 131
        metadata["rope.dimension_count"] = config.get(
            "head_dim", config["hidden_size"] // heads["q"]
        )
    if config.get("use_sliding_window", True) and config.get("sliding_window"):
        metadata["attention.sliding_window"] = config["sliding_window"]
    names = NAMES.get(architecture, LLAMA)
    tensors = {
        name: _values(name, values, architecture, heads)
        for name, values in llama_cpp_names(_apart(drawn(variant)), names).items()
    }
    if rope.get("rope_type") == "llama3":
        head_dim = metadata["rope.dimension_count"]
        tensors["rope_freqs.weight"] = _llama3_factors(head_dim, **rope)
    return write_gguf(path, architecture, {**metadata, **more}, tensors)


def _llama3_factors(head_dim: int, **rope: Any) -> FloatArray:
    """What the converter divides each frequency by, in float32."""
    found = []
    for pair in range(head_dim // 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (2 * pair / head_dim)
        turns, factor = rope["original_max_position_embeddings"] / wave, rope["factor"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = (turns - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        found.append(1.0 if turns > high else factor if turns < low else between)
    assert len({*found}) > 3  # some are between
    return np.array(found, np.float32)


def _apart(tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Granite 4's gate and up, which lie in one tensor, by the names of Llama's."""
    found: dict[str, FloatArray] = {}
    for name, values in tensors.items():
        if "shared_mlp.input_linear" not in name:
            found[name] = values
            continue
        for part, rows in zip(("gate", "up"), np.split(values, 2), strict=True):
            found[name.replace("shared_mlp.input_linear", f"mlp.{part}_proj")] = rows
    return found


def _values(name: str, values: FloatArray, architecture: str, heads: dict[str, int]) -> FloatArray:
    if architecture in ADDED_TO_1 and name.endswith("norm.weight"):
        return values + np.float32(1)
    for part, count in heads.items():
        if architecture in PERMUTED and f".attn_{part}." in name:
            return interleaved(values, count)
    return values


@pytest.mark.parametrize("variant", FILES)
def test_a_file_has_the_logits_of_its_directory(variant: str, tmp_path: Path) -> None:
    """The same bits where rows are in the same order, else sums of attention are not."""
    golden = golden_of(variant)
    folder = write_directory(tmp_path / "folder", variant, golden["shapes"], golden["seed"])
    path = gguf_file(tmp_path / "model.gguf", variant)
    got, want = logits(loaded(path)), logits(loaded(folder))
    if FILES[variant][0] in PERMUTED:
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    else:
        assert np.array_equal(got, want)
    assert read_header(path).config.windowed == read_header(folder).config.windowed
