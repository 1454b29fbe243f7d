"""The families with experts as files of other forms: GGUF with a layer's experts in one tensor,
gate and up in one, or one by one; directories with gate and up in one.

Names are llama.cpp's and transformers'. Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from octavo.batch import FloatArray
from tests.families.directories import config_of
from tests.families.forms import drawn
from tests.families.gguf_files import interleaved, write_gguf

ARCHITECTURES = {
    "mixtral": "llama", "qwen3_moe": "qwen3moe", "olmoe": "olmoe", "granitemoe": "granitemoe",
    "granitemoeshared": "granitemoe",
}  # fmt: skip
PERMUTED = ("llama", "granitemoe")
_PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp", "block_sparse_moe.router.layer": "ffn_gate_inp",
    "shared_mlp.output_linear": "ffn_down_shexp",
}  # fmt: skip
_OF_ONE = {"w1": "gate", "w3": "up", "w2": "down"}
_ONE = re.compile(r"(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+?)(?:_proj)?")
_OF_EXPERTS = re.compile(r"\.ffn_\w+(_exps|\.\d+)\.")
_KEYS = {
    "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale",
    "num_experts": "expert_count", "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count", "clip_qkv": "attention.clamp_kqv",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_intermediate_size": "expert_shared_feed_forward_length",
    "sliding_window": "attention.sliding_window", "head_dim": "attention.key_length",
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length", "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count", "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}  # fmt: skip

Form = Literal["stacked", "gate and up", "one by one"]  # how a GGUF file has experts
Tensors = dict[str, FloatArray]


def architecture(variant: str) -> str:
    return ARCHITECTURES[config_of(variant)["model_type"]]


def gguf_file(
    path: Path,
    variant: str,
    *,
    experts: Form = "stacked",
    changed: Mapping[str, Any] | None = None,
    quantised: bool = False,
    **keys: Any,
) -> Path:
    """`changed` are tensors of other values or types; None takes one away. So are `keys`."""
    config = config_of(variant)
    metadata = {ours: config[name] for name, ours in _KEYS.items() if config.get(name) is not None}
    if "head_dim" in config:
        metadata["attention.value_length"] = config["head_dim"]
    if architecture(variant) in PERMUTED:  # those that llama.cpp converts as Llamas
        head_dim = config["hidden_size"] // config["num_attention_heads"]
        metadata |= {"vocab_size": 131, "rope.dimension_count": config.get("head_dim") or head_dim}
    rope = config.get("rope_parameters", config)
    metadata["rope.freq_base"] = float(rope["rope_theta"])
    tensors = {**gguf_tensors(variant, experts), **(changed or {})}
    kept = {name: values for name, values in tensors.items() if values is not None}
    large = [name for name in kept if _OF_EXPERTS.search(name)] if quantised else []
    return write_gguf(path, architecture(variant), {**metadata, **keys}, kept, quantised=large)


def gguf_tensors(variant: str, experts: Form = "stacked") -> Tensors:
    config, permuted = config_of(variant), architecture(variant) in PERMUTED
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    found: Tensors = {}
    for name, values in drawn(variant).items():
        stem, _, kind = name.rpartition(".")
        if stem in top:
            found[f"{top[stem]}.{kind}"] = values
            continue
        _, _, layer, part = stem.split(".", 3)
        for ours, each in _named(part, values).items():
            turned = interleaved(each, heads[ours]) if permuted and ours in heads else each
            found[f"blk.{layer}.{ours}.{kind}"] = turned
    if experts == "one by one":
        return _one_by_one(found)
    return _gate_and_up(_stacked(found)) if experts == "gate and up" else _stacked(found)


def _named(part: str, values: FloatArray) -> Tensors:
    """The tensors of llama.cpp that one of transformers is; of an expert, by its number."""
    if part.endswith("input_linear"):  # gate, then up
        of = "exps" if values.ndim == 3 else "shexp"
        gate, up = np.split(values, 2, axis=-2)
        return {f"ffn_gate_{of}": gate, f"ffn_up_{of}": up}
    if part == "block_sparse_moe.output_linear":
        return {"ffn_down_exps": values}
    if one := _ONE.fullmatch(part):
        return {f"ffn_{_OF_ONE.get(one[2], one[2])}.{one[1]}": values}
    return {_PARTS[part]: values}


def _stacked(tensors: Tensors) -> Tensors:
    """Those of single experts, `blk.0.ffn_gate.3`, together; they come in order."""
    found: Tensors = {}
    of_layers: dict[str, list[FloatArray]] = {}
    for name, values in tensors.items():
        if one := re.fullmatch(r"(blk\.\d+\.ffn_\w+)\.\d+\.weight", name):
            of_layers.setdefault(f"{one[1]}_exps.weight", []).append(values)
        else:
            found[name] = values
    return found | {name: np.stack(each) for name, each in of_layers.items()}


def _gate_and_up(tensors: Tensors) -> Tensors:
    """As newer converters write them if they are told to: each expert's gate, then its up."""
    found: Tensors = {}
    for name, values in tensors.items():
        if "ffn_gate_exps" in name:
            up = tensors[name.replace("gate", "up")]
            found[name.replace("gate", "gate_up")] = np.concatenate([values, up], axis=1)
        elif "ffn_up_exps" not in name:
            found[name] = values
    return found


def _one_by_one(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, values in tensors.items():
        if "_exps." in name:
            found |= {name.replace("_exps.", f".{e}."): each for e, each in enumerate(values)}
        else:
            found[name] = values
    return found


def fused(tensors: Tensors) -> Tensors:
    """A directory's tensors as transformers has them in memory, and saves them if it is told to."""
    found: Tensors = {}
    of_layers: dict[str, dict[str, list[FloatArray]]] = {}
    for name, values in tensors.items():
        layer, _, part = name.removesuffix(".weight").partition(".mlp.")
        if "block_sparse_moe" in name:
            layer, _, part = name.removesuffix(".weight").partition(".block_sparse_moe.")
        if one := _ONE.fullmatch(f"mlp.{part}"):
            which = _OF_ONE.get(one[2], one[2])
            of_layers.setdefault(layer, {}).setdefault(which, []).append(values)
        else:
            found[name.replace("block_sparse_moe.gate.", "mlp.gate.")] = values
    for layer, parts in of_layers.items():
        both = np.concatenate([np.stack(parts["gate"]), np.stack(parts["up"])], axis=1)
        found[f"{layer}.mlp.experts.gate_up_proj"] = both
        found[f"{layer}.mlp.experts.down_proj"] = np.stack(parts["down"])
    return found
