"""Says in a config.json what a GGUF file's `ModelConfig` says.

Comes in: the config. Goes out: the fields, and the family whose names its tensors have. What is
written is read again, and must be the config that it was made of: what a config.json of the family
cannot say is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any

from octavo.errors import UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.weights.hf.config import model_config
from octavo.weights.hf.families import FAMILIES
from octavo.weights.hf.family import Family
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.windows import FULL, WINDOWED
from octavo.weights.rope_scaling import llama3_factors

# GGUF's architecture -> the class of transformers.
CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "llama": "LlamaForCausalLM",
        "qwen2": "Qwen2ForCausalLM",
        "qwen3": "Qwen3ForCausalLM",
        "smollm3": "SmolLM3ForCausalLM",
        "granite": "GraniteForCausalLM",
        "olmo2": "Olmo2ForCausalLM",
        "gemma2": "Gemma2ForCausalLM",
        "gemma3": "Gemma3ForCausalLM",
    }
)
_NOT_SAID = ("assumed", "padding", "why_no_longer", "rope_style", "unsupported")
# transformers makes the mask of a window for these, even if no layer has one.
_NO_WINDOW: Mapping[str, int] = MappingProxyType({"gemma2": 4096, "gemma3": 4096})
_NEAR = 1e-6  # floats that go through another formula, or were float32
# GGUF files have the factors of Llama 3.1 to 3.3, not what they are made of.
_LLAMA3_FACTORS = (8.0, 32.0)
_LLAMA3: Mapping[str, Any] = MappingProxyType({"original": 8192, "low": 1.0, "high": 4.0})


def family_for(config: ModelConfig) -> Family:
    """Raises UnsupportedModelError for an architecture that is not written."""
    return FAMILIES[_class_of(config)]


def _class_of(config: ModelConfig) -> str:
    if config.mixture:
        raise UnsupportedModelError("a model with experts cannot be written as a directory")
    if config.architecture not in CLASSES:
        known = ", ".join(CLASSES)
        raise UnsupportedModelError(
            f"architecture {config.architecture!r} cannot be written as a directory: {known} can"
        )
    if config.architecture == "llama" and config.windowed:
        return "MistralForCausalLM"  # which GGUF files call llama, too
    return CLASSES[config.architecture]


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of config.json but for tokens and dtype. Raises UnsupportedModelError for
    what they cannot say."""
    family, name = family_for(config), _class_of(config)
    found: dict[str, Any] = {
        "architectures": [name], "model_type": family.model_type,
        "hidden_size": config.hidden_size, "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim,
        "vocab_size": config.vocab_size, "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps, "rope_theta": config.rope_base,
        "rope_scaling": _scaling(config), "tie_word_embeddings": config.tied_head,
        family.activation: family.activations[0],
        **_biases(config, family), **_windows(config, family), **_scales(config, family),
    }  # fmt: skip
    if family.some_without_rope:
        found["no_rope_layers"] = [int(config.has_rope(i)) for i in range(config.num_layers)]
    _check_reads(found, config, name)
    return found


def _scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rope_scale != 1:
        return {"type": "linear", "rope_type": "linear", "factor": config.rope_scale}
    for factor in _LLAMA3_FACTORS if config.rope_factors else ():
        found = llama3_factors(config.rope_base, config.rotary_dim, factor=factor, **_LLAMA3)
        if _same(found, config.rope_factors):
            return {
                "rope_type": "llama3", "factor": factor, "low_freq_factor": _LLAMA3["low"],
                "high_freq_factor": _LLAMA3["high"],
                "original_max_position_embeddings": _LLAMA3["original"],
            }  # fmt: skip
    return None


def _biases(config: ModelConfig, family: Family) -> dict[str, bool]:
    asked = (family.qkv_bias, config.qkv_bias), (family.ffn_bias, config.ffn_bias)
    return {name: biased for name, biased in asked if isinstance(name, str)}


def _windows(config: ModelConfig, family: Family) -> dict[str, Any]:
    if family.windowed == "none" and not family.local_base:
        return {}
    found: dict[str, Any] = {
        "sliding_window": config.window or _NO_WINDOW.get(config.architecture),
        "layer_types": [FULL if config.is_full(i) else WINDOWED for i in range(config.num_layers)],
    }
    if config.windowed and "use_sliding_window" in family.assumed:
        found["use_sliding_window"] = True
    if config.windowed and family.windowed == "later":
        first = config.windowed.index(True)
        if all(config.windowed[first:]):  # older transformers knows no layer_types
            found["max_window_layers"] = first
    if family.local_base:
        found[family.local_base] = config.local_rope_base
    return found


def _scales(config: ModelConfig, family: Family) -> dict[str, float | None]:
    values = {
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "attention_multiplier": config.score_scale,
        "logits_scaling": 1 / config.logit_scale,
        "query_pre_attn_scalar": config.score_scale**-2,
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
    }
    return {name: values[name] for name in family.scales}


def _check_reads(found: Mapping[str, Any], config: ModelConfig, name: str) -> None:
    read = model_config(Fields("config.json", found))
    wanted = replace(config, rope_style="half")
    for each in fields(ModelConfig):
        value, back = getattr(wanted, each.name), getattr(read, each.name)
        if each.name not in _NOT_SAID and not _same(value, back):
            raise UnsupportedModelError(
                f"its {each.name} ({_short(value)}) is nothing that a config.json of {name} says"
            )


def _same(value: object, back: object) -> bool:
    if isinstance(value, float) and isinstance(back, float):
        return math.isclose(value, back, rel_tol=_NEAR)
    if isinstance(value, tuple) and isinstance(back, tuple) and len(value) == len(back):
        return all(map(_same, value, back))
    return value == back


def _short(value: object) -> str:
    return f"{len(value)} numbers" if isinstance(value, tuple) else str(value)
