"""Tiny Gemma 4 models as directories, and as GGUF files that llama.cpp's converter would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from octavo.batch import FloatArray
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.forms import drawn
from tests.families.gguf_files import write_gguf

TABLE = "per_layer_token_embd.weight"
_PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm", "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
    "embed_tokens": "token_embd", "norm": "output_norm",
    "embed_tokens_per_layer": "per_layer_token_embd",
    "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
}  # fmt: skip


def directory(path: Path, variant: str = "gemma4") -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def sizes_of(config: dict[str, Any]) -> tuple[int, int]:
    """Head size and KV heads of full layers."""
    by_layer = [*config.get("per_layer_config", {}).values()]
    if by_layer:
        return by_layer[0]["head_dim"], by_layer[0]["num_key_value_heads"]
    return config["global_head_dim"], config["num_key_value_heads"]


def gguf_file(
    path: Path, variant: str, *, without: str = "", quantised: tuple[str, ...] = (), **keys: Any
) -> Path:
    """As llama.cpp's converter writes it."""
    config = config_of(variant)
    layers, sharing = config["num_hidden_layers"], config["num_kv_shared_layers"]
    windowed = [kind == "sliding_attention" for kind in config["layer_types"]]
    dim, kv_heads = sizes_of(config)
    ffn: Any = config["intermediate_size"]
    if config["use_double_wide_mlp"]:
        ffn = [ffn * (2 if i >= layers - sharing else 1) for i in range(layers)]
    metadata = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "block_count": layers,
        "feed_forward_length": ffn, "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": [
            config["num_key_value_heads"] if each else kv_heads for each in windowed
        ],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "attention.key_length": dim, "attention.value_length": dim,
        "attention.key_length_swa": config["head_dim"],
        "attention.value_length_swa": config["head_dim"],
        "attention.sliding_window": config["sliding_window"],
        "attention.sliding_window_pattern": windowed, "attention.shared_kv_layers": sharing,
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "rope.dimension_count": dim, "rope.dimension_count_swa": config["head_dim"],
        "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4,
    }  # fmt: skip
    if config["final_logit_softcapping"]:
        metadata["final_logit_softcapping"] = config["final_logit_softcapping"]
    tensors: dict[str, FloatArray] = {}
    for name, values in drawn(variant).items():
        stem = name.removeprefix("model.")
        if stem.startswith("layers."):
            _, layer, part = stem.split(".", 2)
            ours = "layer_output_scale"
            if part != "layer_scalar":
                ours = _PARTS[part.removesuffix(".weight")]
            tensors[f"blk.{layer}.{ours}.weight"] = values
        else:
            tensors[f"{_PARTS[stem.removesuffix('.weight')]}.weight"] = values
    turned = dim // 8
    tensors["rope_freqs.weight"] = np.array(
        [1.0] * turned + [1e30] * (dim // 2 - turned), np.float32
    )
    tensors.pop(without, None)
    return write_gguf(path, "gemma4", {**metadata, **keys}, tensors, quantised=quantised)
