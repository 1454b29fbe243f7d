"""A Llama of Hugging Face transformers that holds the same dequantised float32 weights as ours.

Comes in: our config and `reference_weights`. Goes out: LlamaForCausalLM on the CPU, in float32.
Needs torch and transformers. Only names and the order of q's and k's rows differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from octavo.batch import FloatArray
from octavo.model.config import ModelConfig

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def build(cfg: ModelConfig, weights: Mapping[str, FloatArray]) -> LlamaForCausalLM:
    """Raises if a weight of theirs is left without a value, or one of ours without a place."""
    model = LlamaForCausalLM(_config(cfg))
    state = {their_name(n): torch.from_numpy(_their_rows(n, w, cfg)) for n, w in weights.items()}
    if cfg.tied_head:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.float().eval()


def logits(model: LlamaForCausalLM, tokens: Sequence[int]) -> FloatArray:
    """After every token: (len(tokens), vocab). One pass without a cache."""
    with torch.inference_mode():
        out: FloatArray = model(torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()
    return out


def greedy(model: LlamaForCausalLM, tokens: Sequence[int], count: int) -> list[int]:
    """The `count` likeliest next tokens, each from a pass over the whole text before it."""
    text = list(tokens)
    for _ in range(count):
        text.append(int(logits(model, text)[-1].argmax()))
    return text[len(tokens) :]


def _config(cfg: ModelConfig) -> LlamaConfig:
    if cfg.rope_factors or cfg.rope_scale != 1.0 or cfg.rotary_dim != cfg.head_dim:
        raise ValueError("parity is checked for plain rotary embeddings only")
    return LlamaConfig(
        vocab_size=cfg.vocab_size,
        hidden_size=cfg.hidden_size,
        intermediate_size=cfg.ffn_size,
        num_hidden_layers=cfg.num_layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        head_dim=cfg.head_dim,
        max_position_embeddings=cfg.context,
        rms_norm_eps=cfg.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_base},
        tie_word_embeddings=cfg.tied_head,
        attention_bias=cfg.qkv_bias,
        attn_implementation="eager",
    )


def their_name(name: str, layer_names: Mapping[str, str] = LAYER_NAMES) -> str:
    """Their name of a weight of the program; `layer_names` are those inside a layer."""
    if not name.startswith("blk."):
        head, kind = name.rsplit(".", 1)
        top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
        return f"{top[head]}.{kind}"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{layer_names[part]}.{kind}"


def _their_rows(name: str, weight: FloatArray, cfg: ModelConfig) -> FloatArray:
    """GGUF has the two rows of a rotated pair side by side, transformers half a head apart."""
    for part, heads in ((".attn_q.", cfg.heads), (".attn_k.", cfg.kv_heads)):
        if part in name and cfg.rope_style == "interleaved":
            pairs = weight.reshape(heads, cfg.head_dim // 2, 2, -1)
            return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))
    return weight
