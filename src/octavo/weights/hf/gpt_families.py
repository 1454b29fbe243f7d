"""The families with LayerNorms and MLPs without gates: GPT-2, StarCoder, StarCoder2, Falcon, BLOOM,
MPT, OPT.

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

_BLOOM_TOP = {
    **_FALCON_TOP,
    "token_embd_norm.weight": "transformer.word_embeddings_layernorm.weight",
    "token_embd_norm.bias": "transformer.word_embeddings_layernorm.bias",
}
_BLOOM = {part: name for part, name in _FALCON.items() if part != "attn_norm_2"}
_MPT_TOP = {
    "token_embd.weight": "transformer.wte.weight",
    "output_norm.weight": "transformer.norm_f.weight",
    "output.weight": "lm_head.weight",
}
_MPT = {
    "attn_norm": "norm_1",
    "attn_qkv": "attn.Wqkv",
    "attn_output": "attn.out_proj",
    "ffn_norm": "norm_2",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}
_OPT_TOP = {
    "token_embd.weight": "model.decoder.embed_tokens.weight",
    "position_embd.weight": "model.decoder.embed_positions.weight",
    "embd_in.weight": "model.decoder.project_in.weight",
    "embd_out.weight": "model.decoder.project_out.weight",
    "output_norm.weight": "model.decoder.final_layer_norm.weight",
    "output_norm.bias": "model.decoder.final_layer_norm.bias",
    "output.weight": "lm_head.weight",
}
_OPT = {
    **ATTENTION,
    "attn_norm": "self_attn_layer_norm",
    "attn_output": "self_attn.out_proj",
    "ffn_norm": "final_layer_norm",
    "ffn_up": "fc1",
    "ffn_down": "fc2",
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
BLOOM = Family(
    "bloom", "bloom", _BLOOM, top_names=_BLOOM_TOP, layers="transformer.h.",
    may_lack="transformer.", views=qkv_by_group, ffn_factor=4, has_rope=False, windowed="none",
    field_names={
        "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "max_position_embeddings": "seq_length", "rms_norm_eps": "layer_norm_epsilon",
        "intermediate_size": "n_inner",
    },
    field_aliases={
        "n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    },
    qkv_bias=True, output_bias=True, ffn_bias=True, ungated=_ACTIVATIONS,
    ignored=(
        "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "skip_bias_add",
        "skip_bias_add_qkv", "slow_but_exact",
    ),
    assumed={**_EVERY, "hidden_act": "gelu_pytorch_tanh", "seq_length": 2048},
)  # fmt: skip
MPT = Family(
    "mpt", "mpt", _MPT, top_names=_MPT_TOP, layers="transformer.blocks.", views=qkv_in_turn,
    ffn_factor="expansion_ratio", has_rope=False, windowed="none", ungated=_ACTIVATIONS,
    field_names={
        "hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len", "rms_norm_eps": "layer_norm_epsilon",
    },
    ignored=(
        "init_device", "init_config", "learned_pos_emb", "embedding_fraction", "tokenizer_name",
        "verbose", "param_init_fn", "emb_init_std", "emb_init_uniform_lim", "fan_mode",
        "init_div_is_residual", "init_gain", "init_nonlinearity",
    ),
    assumed={**_EVERY, "hidden_act": "gelu", "expansion_ratio": 4, "max_seq_len": 2048},
)  # fmt: skip
OPT = Family(
    "opt", "opt", _OPT, top_names=_OPT_TOP, layers="model.decoder.layers.", may_lack="model.",
    has_rope=False, windowed="none", qkv_bias="enable_bias", output_bias="enable_bias",
    ffn_bias="enable_bias", activation="activation_function", ungated=_ACTIVATIONS,
    field_names={"intermediate_size": "ffn_dim", "rms_norm_eps": "layer_norm_epsilon"},
    assumed={
        **_EVERY, "activation_function": "relu", "enable_bias": True,
        "max_position_embeddings": 2048, "ffn_dim": 3072,
    },
)  # fmt: skip
