"""The families with LayerNorms and MLPs without gates: GPT-2, StarCoder, StarCoder2, Falcon.

Tables only, as `families`, which has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from octavo.model.config import ModelConfig
from octavo.program.ops import ActivationKind
from octavo.weights.hf.family import ATTENTION, Family
from octavo.weights.weight_orders import qkv_by_group, qkv_in_turn, transposed
from octavo.weights.weight_view import Views

_ACTIVATIONS: Mapping[str, ActivationKind] = MappingProxyType(
    {
        "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
        "gelu": "gelu", "gelu_python": "gelu", "relu": "relu",
    }
)  # fmt: skip

_FALCON_TOP = {
    "token_embd.weight": "transformer.word_embeddings.weight",
    "output_norm.weight": "transformer.ln_f.weight",
    "output_norm.bias": "transformer.ln_f.bias",
    "output.weight": "lm_head.weight",
}
_GPT_TOP = {
    **_FALCON_TOP,
    "token_embd.weight": "transformer.wte.weight",
    "position_embd.weight": "transformer.wpe.weight",
}
_GPT = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_STARCODER2 = {
    **ATTENTION,
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_FALCON = {
    "attn_norm": "input_layernorm",
    "attn_norm_2": "ln_attn",
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}

_GPT_FIELDS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
}
_FALCON_FIELDS = {
    "num_key_value_heads": "num_kv_heads",
    "intermediate_size": "ffn_hidden_size",
    "rms_norm_eps": "layer_norm_epsilon",
}

_RW_FIELDS = {
    **_FALCON_FIELDS,
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_head_kv",
}

_EVERY: Mapping[str, float | bool | str] = MappingProxyType(
    {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
)


def _conv1d(config: ModelConfig) -> Views:
    """GPT-2's linear layers are stored as (in, out)."""
    views, qkv = qkv_in_turn(config), ("attn_q", "attn_k", "attn_v")
    return transposed(views, *qkv, "attn_output", "ffn_up", "ffn_down")


GPT2 = Family(
    "gpt2", "gpt2", _GPT, top_names=_GPT_TOP, layers="transformer.h.", may_lack="transformer.",
    views=_conv1d, field_names=_GPT_FIELDS, ffn_factor=4, has_rope=False, windowed="none",
    qkv_bias=True, output_bias=True, ffn_bias=True,
    activation="activation_function", ungated=_ACTIVATIONS, ignored=("n_ctx",),
    assumed={**_EVERY, "activation_function": "gelu_new"},
)  # fmt: skip
STARCODER = Family(
    "gpt_bigcode", "starcoder", _GPT, top_names=_GPT_TOP, layers="transformer.h.",
    may_lack="transformer.", views=qkv_by_group, field_names=_GPT_FIELDS, ffn_factor=4,
    has_rope=False, has_multi_query=True, qkv_bias=True, output_bias=True, ffn_bias=True,
    activation="activation_function", ungated=_ACTIVATIONS, ignored=("n_ctx",), windowed="none",
    assumed={**_EVERY, "activation_function": "gelu_pytorch_tanh", "multi_query": True},
)  # fmt: skip
STARCODER2 = Family(
    "starcoder2", "starcoder2", _STARCODER2, field_names={"rms_norm_eps": "norm_epsilon"},
    qkv_bias="use_bias", output_bias="use_bias", ffn_bias="use_bias", ungated=_ACTIVATIONS,
    needs=("num_key_value_heads",), ignored=("activation_function", "layer_norm_epsilon"),
    assumed={
        "norm_epsilon": 1e-5, "tie_word_embeddings": True, "use_bias": True, "rope_theta": 10000.0,
        "hidden_act": "gelu_pytorch_tanh",
    },
)  # fmt: skip
FALCON = Family(
    "falcon", "falcon", _FALCON, top_names=_FALCON_TOP, layers="transformer.h.",
    other_names={"ln_mlp": "attn_norm"}, views=qkv_by_group, field_names=_FALCON_FIELDS,
    ffn_factor=4, has_multi_query=True, qkv_bias="bias", output_bias="bias", ffn_bias="bias",
    activation="activation", ungated=_ACTIVATIONS, windowed="none",
    assumed={
        **_EVERY, "activation": "gelu", "rope_theta": 10000.0, "max_position_embeddings": 2048,
        "multi_query": True,
    },
)  # fmt: skip
# Falcon as it was published first, with code of its own: 7B, and 40B by groups.
RW = replace(
    FALCON, model_type="RefinedWebModel", other_type="RefinedWeb", field_names=_RW_FIELDS,
    has_groups_if_said=True,
    assumed={**FALCON.assumed, "multi_query": False, "parallel_attn": False},
)  # fmt: skip
