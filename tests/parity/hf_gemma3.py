"""A Gemma 3 of Hugging Face transformers that holds the same dequantised float32 weights as ours.

Needs torch and transformers. Names differ, and weights of norms: theirs are added to 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from octavo.batch import FloatArray
from octavo.model.config import ModelConfig
from tests.parity import hf_llama

_LAYER_NAMES = {
    **hf_llama.LAYER_NAMES,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def build(cfg: ModelConfig, weights: Mapping[str, FloatArray]) -> Gemma3ForCausalLM:
    """Raises if a weight of theirs is left without a value, or one of ours without a place."""
    model = Gemma3ForCausalLM(_config(cfg))
    state = {}
    for name, weight in weights.items():
        ours = weight - 1 if "norm" in name else weight
        state[hf_llama.their_name(name, _LAYER_NAMES)] = torch.from_numpy(ours)
    if cfg.tied_head:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.float().eval()


def _config(cfg: ModelConfig) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.ffn_size,
        num_hidden_layers=cfg.num_layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        head_dim=cfg.head_dim,
        hidden_activation="gelu_pytorch_tanh",
        max_position_embeddings=cfg.context,
        rms_norm_eps=cfg.norm_eps,
        query_pre_attn_scalar=cfg.head_dim,
        sliding_window=cfg.window,
        layer_types=[
            "full_attention" if cfg.is_full(i) else "sliding_attention"
            for i in range(cfg.num_layers)
        ],
        rope_parameters={
            "full_attention": {
                "rope_type": "linear",
                "rope_theta": cfg.rope_base,
                "factor": cfg.rope_scale,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": cfg.local_rope_base},
        },
        tie_word_embeddings=cfg.tied_head,
        attn_implementation="eager",
    )
