"""The families that are run from model directories: what each is called, there and here.

Tables only: classes of transformers, what their files mean by fields that they leave out, and
which of their tensors is which of the program's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from octavo.errors import UnsupportedModelError
from octavo.model import recurrent
from octavo.weights.hf.expert_families import (
    DEEPSEEK_V2,
    GPT_OSS,
    GRANITE_MOE,
    GRANITE_MOE_SHARED,
    MIXTRAL,
    OLMOE,
    QWEN3_MOE,
)
from octavo.weights.hf.family import ATTENTION, EVERY, GRANITE_SCALES, QK_NORMS, TOP, Family
from octavo.weights.hf.gpt_families import (
    BLOOM,
    FALCON,
    GPT2,
    MPT,
    OPT,
    RW,
    STARCODER,
    STARCODER2,
)
from octavo.weights.hf.hybrid import IGNORED
from octavo.weights.weight_orders import gate_up_in_turn, phi3

_LLAMA = {
    **ATTENTION,
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA3 = {
    **_LLAMA,
    **QK_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_GEMMA4 = {
    **_GEMMA3,
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
    "layer_output_scale": "layer_scalar",
}
_GEMMA4_TOP = {
    **TOP,
    "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
}

_GEMMA2 = {part: name for part, name in _GEMMA3.items() if part not in QK_NORMS}

_OLMO2 = {
    **{part: name for part, name in _LLAMA.items() if part not in ("attn_norm", "ffn_norm")},
    **QK_NORMS,
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_QWEN3 = {**_LLAMA, **QK_NORMS}

_PHI3 = {
    **{part: _LLAMA[part] for part in ("attn_norm", "attn_output", "ffn_norm", "ffn_down")},
    "attn_qkv": "self_attn.qkv_proj",
    "ffn_up": "mlp.gate_up_proj",
}

_GRANITE_HYBRID = {
    **{part: name for part, name in _LLAMA.items() if part != "ffn_gate"},
    "ffn_up": "shared_mlp.input_linear",
    "ffn_down": "shared_mlp.output_linear",
}

# Tables that older versions saved and that nobody reads: they follow from the config. GPT-2's are
# which tokens a token may see.
_LEFTOVERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")

_ENCODERS = (
    *("Albert", "Bert", "Deberta", "DistilBert", "Electra", "MPNet", "ModernBert", "NomicBert"),
    *("Roberta", "XLMRoberta"),
)


_GEMMA3_TEXT = Family(
    "gemma3_text", "gemma3", _GEMMA3, activation="hidden_activation",
    activations=("gelu_pytorch_tanh",), norm_offset=1.0, windowed="all but every nth",
    local_base="rope_local_base_freq", scales=("query_pre_attn_scalar",),
    needs=("num_key_value_heads", "head_dim"),
    assumed={
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "sliding_window": 4096, "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
    },
)  # fmt: skip

_GEMMA4_TEXT = Family(
    "gemma4_text", "gemma4", _GEMMA4, top_names=_GEMMA4_TOP, activation="hidden_activation",
    activations=("gelu_pytorch_tanh",), windowed="all but every nth, unsaid", qk_norm=True,
    local_base="rope_local_base_freq", is_uneven=True, must_scale=True,
    needs=("num_key_value_heads", "head_dim"),
    assumed={
        **EVERY, "tie_word_embeddings": True, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "sliding_window": 512, "sliding_window_pattern": 6, "global_head_dim": 512,
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144, "hidden_activation": "gelu_pytorch_tanh",
    },
)  # fmt: skip

_MINISTRAL3_TEXT = Family(
    "ministral3", "mistral3", _LLAMA, position_scaled=True,
    needs=("num_key_value_heads", "head_dim"), assumed={**EVERY, "rms_norm_eps": 1e-5},
)  # fmt: skip

_MISTRAL = Family(
    "mistral", "llama", _LLAMA, needs=("num_key_value_heads",),
    assumed={**EVERY, "sliding_window": 4096},
)  # fmt: skip

_OF_MISTRAL3: Mapping[str, Any] = {
    "model_type": "mistral3", "part": "text_config", "prefix": "language_model.",
    "left_out": ("vision_tower.", "multi_modal_projector."),
}  # fmt: skip

_OLMO2_WHOLE = Family(
    "olmo2", "olmo2", _OLMO2, qkv_bias="attention_bias", output_bias="attention_bias",
    qk_norm=True, windowed="none", assumed={**EVERY, "rms_norm_eps": 1e-5},
)  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlamaForCausalLM": Family(
            "llama", "llama", _LLAMA, windowed="none",
            qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias",
        ),
        "MistralForCausalLM": _MISTRAL,
        "MixtralForCausalLM": MIXTRAL,
        "Qwen2ForCausalLM": Family(
            "qwen2", "qwen2", _LLAMA, qkv_bias=True, needs=("num_key_value_heads",),
            windowed="later",
            assumed={
                **EVERY, "use_sliding_window": False, "max_window_layers": 28,
                "sliding_window": 4096,
            },
        ),
        "Qwen3ForCausalLM": Family(
            "qwen3", "qwen3", _QWEN3, qk_norm=True, needs=("num_key_value_heads",),
            windowed="later", qkv_bias="attention_bias", output_bias="attention_bias",
            assumed={
                **EVERY, "head_dim": 128, "use_sliding_window": False, "max_window_layers": 28,
                "sliding_window": 4096,
            },
        ),
        "Qwen3MoeForCausalLM": QWEN3_MOE,
        "DeepseekV2ForCausalLM": DEEPSEEK_V2,
        "SmolLM3ForCausalLM": Family(
            "smollm3", "smollm3", _LLAMA, some_without_rope=True, windowed="without_rope",
            qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias",
            needs=("num_key_value_heads",),
            assumed={
                **EVERY, "tie_word_embeddings": True, "rope_theta": 2e6,
                "use_sliding_window": False, "no_rope_layer_interval": 4,
            },
        ),
        "Phi3ForCausalLM": Family(
            "phi3", "phi3", _PHI3, partial_rotary=True, views=phi3,
            assumed={
                **EVERY, "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096,
            },
        ),
        "Ministral3ForCausalLM": _MINISTRAL3_TEXT,
        "Mistral3ForConditionalGeneration": replace(
            _MISTRAL, part_type="mistral", **_OF_MISTRAL3,
            other_parts=(
                replace(
                    _MINISTRAL3_TEXT, part_type="ministral3", **_OF_MISTRAL3,
                    assumed={**_MINISTRAL3_TEXT.assumed, "tie_word_embeddings": True},
                ),
            ),
        ),
        "GraniteForCausalLM": Family(
            "granite", "granite", _LLAMA, windowed="none",
            qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias",
            scales=tuple(GRANITE_SCALES), assumed={**EVERY, **GRANITE_SCALES},
        ),
        "GraniteMoeForCausalLM": GRANITE_MOE,
        "GraniteMoeSharedForCausalLM": GRANITE_MOE_SHARED,
        "GraniteMoeHybridForCausalLM": Family(
            "granitemoehybrid", "granite", _GRANITE_HYBRID, windowed="none", is_hybrid=True,
            qkv_bias="attention_bias", output_bias="attention_bias", views=gate_up_in_turn,
            field_names={"intermediate_size": "shared_intermediate_size"}, ignored=IGNORED,
            scales=tuple(GRANITE_SCALES),
            assumed={
                **EVERY, **GRANITE_SCALES, "num_local_experts": 8,
                "shared_intermediate_size": 1024,
            },
        ),
        "Olmo2ForCausalLM": _OLMO2_WHOLE,
        "Olmo3ForCausalLM": replace(
            _OLMO2_WHOLE, model_type="olmo3", windowed="all but every nth, unsaid",
            local_base="rope_theta",
            assumed={
                **_OLMO2_WHOLE.assumed, "rope_theta": 500000.0, "sliding_window": 4096,
                "sliding_window_pattern": 4,
            },
        ),
        "OlmoeForCausalLM": OLMOE,
        "GptOssForCausalLM": GPT_OSS,
        "GPT2LMHeadModel": GPT2,
        "GPTBigCodeForCausalLM": STARCODER,
        "Starcoder2ForCausalLM": STARCODER2,
        "FalconForCausalLM": FALCON,
        "RWForCausalLM": RW,
        "BloomForCausalLM": BLOOM,
        "MptForCausalLM": MPT,
        "MPTForCausalLM": MPT,  # by the code that came with it
        "OPTForCausalLM": OPT,
        "Gemma2ForCausalLM": Family(
            "gemma2", "gemma2", _GEMMA2, activation="hidden_activation",
            activations=("gelu_pytorch_tanh",), norm_offset=1.0,
            windowed="all but every nth, unsaid",
            qkv_bias="attention_bias", output_bias="attention_bias",
            scales=("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
            needs=("num_key_value_heads", "head_dim"),
            assumed={
                **EVERY, "tie_word_embeddings": True, "sliding_window": 4096,
                "sliding_window_pattern": 2, "query_pre_attn_scalar": 256,
                "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
            },
        ),
        "Gemma3ForCausalLM": _GEMMA3_TEXT,
        "Gemma3ForConditionalGeneration": replace(
            _GEMMA3_TEXT, model_type="gemma3", part="text_config", part_type="gemma3_text",
            prefix="language_model.",
            left_out=("vision_tower.", "multi_modal_projector."), needs=(),
            assumed={
                **_GEMMA3_TEXT.assumed, "vocab_size": 262208, "num_attention_heads": 8,
                "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
            },
        ),
        "Gemma4ForCausalLM": _GEMMA4_TEXT,
        "Gemma4ForConditionalGeneration": replace(
            _GEMMA4_TEXT, model_type="gemma4", part="text_config", part_type="gemma4_text",
            prefix="model.language_model.", layers="layers.",
            top_names={
                ours: theirs.removeprefix("model.") for ours, theirs in _GEMMA4_TOP.items()
            },
            left_out=(
                "model.vision_tower.", "model.audio_tower.", "model.embed_vision.",
                "model.embed_audio.",
            ),
        ),
    }
)  # fmt: skip


def family_of(class_name: str) -> Family:
    """Raises UnsupportedModelError with those that are known."""
    if class_name in FAMILIES:
        return FAMILIES[class_name]
    known = ", ".join(FAMILIES)
    if class_name.startswith(_ENCODERS):
        raise UnsupportedModelError(
            f"{class_name!r} has no decoder, so it writes no text; {known} are run"
        )
    why = recurrent.WHY if class_name.startswith(recurrent.CLASSES) else f"{known} are"
    raise UnsupportedModelError(f"architecture {class_name!r} is not supported: {why}")


def is_leftover(name: str) -> bool:
    return name.endswith(_LEFTOVERS)
