"""The families with experts that are run from model directories. Tables only."""

from __future__ import annotations

from dataclasses import replace

from octavo.weights.hf.experts import IGNORED, USED, ExpertFields
from octavo.weights.hf.family import ATTENTION, EVERY, GRANITE_SCALES, QK_NORMS, Family
from octavo.weights.weight_orders import shared_expert_in_turn

# As transformers has them in memory, and saves them if it is told to.
_FUSED = {
    "ffn_gate_up_exps": "mlp.experts.gate_up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
_MIXTRAL = {**ATTENTION, "ffn_gate_inp": "block_sparse_moe.gate", **_FUSED}
_OF_ONE = {
    "ffn_gate": "mlp.experts.{}.gate_proj",
    "ffn_up": "mlp.experts.{}.up_proj",
    "ffn_down": "mlp.experts.{}.down_proj",
}
_OLMOE = {
    **ATTENTION,
    **QK_NORMS,
    "ffn_gate_inp": "mlp.gate",
    **_FUSED,
}
_QWEN3_MOE = {
    **_OLMOE,
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GRANITE_MOE = {
    **ATTENTION,
    "ffn_gate_inp": "block_sparse_moe.router.layer",
    "ffn_gate_up_exps": "block_sparse_moe.input_linear",
    "ffn_down_exps": "block_sparse_moe.output_linear",
    "ffn_gate_up_shexp": "shared_mlp.input_linear",
    "ffn_down_shexp": "shared_mlp.output_linear",
}
_GPT_OSS = {
    **{part: name for part, name in ATTENTION.items() if part != "ffn_norm"},
    "attn_sinks": "self_attn.sinks",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.router",
    "ffn_pairs_exps": "mlp.experts.gate_up_proj",  # rows of gate and of up by turns
    "ffn_down_exps": "mlp.experts.down_proj",
}
_DEEPSEEK2 = {
    **{
        part: name
        for part, name in _QWEN3_MOE.items()
        if part not in {"attn_k", "attn_v", *QK_NORMS}
    },
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
}
_OVER_CHOSEN = ExpertFields(score="softmax_of_chosen")
_GRANITE_MOE_FUSED = {
    "block_sparse_moe.router": "ffn_gate_inp",
    "block_sparse_moe.experts.gate_up_proj": "ffn_gate_up_exps",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps",
}

MIXTRAL = Family(
    "mixtral", "llama", _MIXTRAL, needs=("num_key_value_heads",), ignored=IGNORED,
    experts=_OVER_CHOSEN,
    expert_names={
        "ffn_gate": "block_sparse_moe.experts.{}.w1", "ffn_up": "block_sparse_moe.experts.{}.w3",
        "ffn_down": "block_sparse_moe.experts.{}.w2",
    },
    other_names={"mlp.gate": "ffn_gate_inp"},
    assumed={
        **EVERY, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 8, USED: 2,
    },
)  # fmt: skip

QWEN3_MOE = Family(
    "qwen3_moe", "qwen3moe", _QWEN3_MOE, qk_norm=True, needs=("num_key_value_heads",),
    windowed="all if used", ignored=IGNORED, qkv_bias="attention_bias",
    output_bias="attention_bias", expert_names=_OF_ONE,
    experts=ExpertFields(
        counts=("num_experts", "num_local_experts"), ffn_size="moe_intermediate_size",
        renormalised="norm_topk_prob", has_dense_layers=True,
    ),
    assumed={
        **EVERY, "use_sliding_window": False, "sliding_window": 4096, "num_experts": 128, USED: 8,
        "moe_intermediate_size": 768, "norm_topk_prob": False, "decoder_sparse_step": 1,
    },
)  # fmt: skip

OLMOE = Family(
    "olmoe", "olmoe", _OLMOE, qk_norm=True, windowed="none", ignored=IGNORED,
    qkv_bias="attention_bias", output_bias="attention_bias", qkv_limit="clip_qkv",
    expert_names=_OF_ONE,
    experts=ExpertFields(
        counts=("num_experts", "num_local_experts"), renormalised="norm_topk_prob"
    ),
    assumed={
        **EVERY, "rms_norm_eps": 1e-5, "num_experts": 64, USED: 8, "norm_topk_prob": False,
    },
)  # fmt: skip

GRANITE_MOE = Family(
    "granitemoe", "granitemoe", _GRANITE_MOE, windowed="none", ignored=IGNORED,
    qkv_bias="attention_bias", output_bias="attention_bias", other_names=_GRANITE_MOE_FUSED,
    scales=tuple(GRANITE_SCALES), experts=_OVER_CHOSEN,
    assumed={**EVERY, **GRANITE_SCALES, "num_local_experts": 8, USED: 2},
)  # fmt: skip

GRANITE_MOE_SHARED = replace(
    GRANITE_MOE, model_type="granitemoeshared", views=shared_expert_in_turn,
    experts=replace(_OVER_CHOSEN, shared_ffn_size="shared_intermediate_size"),
    assumed={**GRANITE_MOE.assumed, "shared_intermediate_size": 0},
)  # fmt: skip

GPT_OSS = Family(
    "gpt_oss", "gpt-oss", _GPT_OSS, qkv_bias="attention_bias", output_bias="attention_bias",
    windowed="all but every nth, unsaid", needs=("num_key_value_heads",),
    ignored=(*IGNORED, "experts_per_token", "initial_context_length"), must_scale=True,
    quantised=("mxfp4",),
    experts=ExpertFields(
        counts=("num_local_experts", "num_experts"), score="softmax_of_chosen",
        activation="clamped_glu", constants={"swiglu_limit": 7.0, "swiglu_alpha": 1.702},
        biased=True,
    ),
    assumed={
        **EVERY, "rms_norm_eps": 1e-5, "rope_theta": 150000.0, "head_dim": 64,
        "attention_bias": True, "sliding_window": 128, "sliding_window_pattern": 2,
        "num_local_experts": 128, USED: 4, "swiglu_limit": 7.0, "swiglu_alpha": 1.702,
    },
)  # fmt: skip

DEEPSEEK_V2 = Family(
    "deepseek_v2", "deepseek2", _DEEPSEEK2, windowed="none", is_latent=True, expert_names=_OF_ONE,
    ignored=(*IGNORED, "aux_loss_alpha", "seq_aux", "ep_size", "head_dim", "qk_head_dim"),
    experts=ExpertFields(
        counts=("n_routed_experts", "num_experts"), ffn_size="moe_intermediate_size",
        shared_count="n_shared_experts", dense_first="first_k_dense_replace",
        scale="routed_scaling_factor", method="topk_method",
        words={"norm_topk_prob": False, "scoring_func": "softmax", "moe_layer_freq": 1},
    ),
    needs=("n_routed_experts", USED),
    assumed={
        **EVERY, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128, "moe_intermediate_size": 1407, "n_shared_experts": 2,
        "first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "topk_method": "greedy",
    },
)  # fmt: skip
