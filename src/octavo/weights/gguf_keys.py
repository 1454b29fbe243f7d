"""The keys of an architecture's own namespace (`llama.*`): each is read, harmless, or refused.

Comes in: what `gguf_config` has not read. Goes out: why the file cannot be run, or nothing. A key
that is left out may change every answer, so what is not listed here is refused by its name.
Knows what llama.cpp and its converters write, and what they mean by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np

from octavo.model.config import ModelConfig
from octavo.weights.gguf_header import MetadataValue

# Whatever these say, the logits are the same.
_HARMLESS: Mapping[str, str] = MappingProxyType(
    {
        "attention.layer_norm_epsilon": "LayerNorm's, where models have RMSNorm",
        "attention.layer_norm_rms_epsilon": "RMSNorm's, where models have LayerNorm",
        "attention.sliding_window_pattern": "the layers of a window, which is refused if it counts",
        "decoder_start_token_id": "where an encoder-decoder begins",
        "pooling_type": "how rows become one embedding",
        "rope.scaling.finetuned": "where the scaling came from",
        "tensor_data_layout": "what the converter read; llama.cpp's own layout is the only one",
        "vocab_size": "the rows of the embedding count, those beyond the tokens as no tokens",
    }
)

_GRANITES = ("granite", "granitemoe")
_HARMLESS_BUT_HERE = frozenset(
    (arch, "rope.scaling.finetuned") for arch in _GRANITES
)  # false: no layer has a rotary embedding
# Of Mamba layers. The converter writes them for dense models of Granite 4 too; where there are such
# layers, their tensors have no place and are refused.
_HARMLESS_HERE = frozenset(
    (arch, f"ssm.{name}")
    for arch in _GRANITES
    for name in ("conv_kernel", "group_count", "inner_size", "state_size", "time_step_rank")
)

# Of experts: where there are none, which expert_count and tensors without a place tell, they may
# say anything; else what these architectures do, whatever llama.cpp writes when it saves one.
_OF_EXPERTS: Mapping[str, tuple[bool | int, ...]] = MappingProxyType(
    {
        "expert_feed_forward_length": (0,),  # read where there are experts
        "expert_gating_func": (0, 1),  # softmax
        "expert_group_count": (0, 1),
        "expert_group_scale": (0, 1),
        "expert_group_used_count": (0, 1),
        "expert_shared_count": (0,),
        "expert_shared_feed_forward_length": (0,),
        "expert_used_count": (0,),  # read, too
        "expert_weights_norm": (False,),
        "expert_weights_scale": (0, 1),
        "leading_dense_block_count": (0,),
        "router_logit_softcapping": (0,),
    }
)
_NORMED = "expert_weights_norm"

# The values at which a key changes nothing; any other changes the arithmetic. llama.cpp, when it
# saves a model, writes most of them with these.
_WITHOUT_EFFECT: Mapping[str, tuple[bool | int | str, ...]] = MappingProxyType(
    {
        "attention.causal": (True,),
        "attn_logit_softcapping": (0,),
        "attention.clamp_kqv": (0,),
        "attention.kv_lora_rank": (0,),
        "attention.max_alibi_bias": (0,),
        "attention.output_scale": (0, 1),
        "attention.q_lora_rank": (0,),
        "attention.relative_buckets_count": (0,),
        "attention.value_scale": (0, 1),
        "embedding_scale": (0, 1),
        "expert_count": (0,),
        "final_logit_softcapping": (0,),
        "logit_scale": (0, 1),
        "nextn_predict_layers": (0,),
        "rescale_every_n_layers": (0,),
        "residual_scale": (0, 1),
        "rope.freq_scale": (0, 1),
        "rope.scaling.alpha": (0, 1),
        "rope.scaling.finetuned": (True,),  # where it says whether there is an embedding at all
        "rope.scaling.yarn_attn_factor": (1,),
        "rope.scaling.yarn_beta_fast": (32,),  # without yarn; so are the others
        "rope.scaling.yarn_beta_slow": (1,),
        "rope.scaling.yarn_ext_factor": (1,),
        "rope.scaling.yarn_log_multiplier": (0,),
        "ssm.conv_kernel": (0,),
        "ssm.dt_b_c_rms": (False,),
        "ssm.inner_size": (0,),
        "ssm.state_size": (0,),
        "ssm.time_step_rank": (0,),
        "swin_norm": (False,),
        "time_decay_extra_dim": (0,),
        "time_mix_extra_dim": (0,),
        "use_parallel_residual": (False,),
        "wkv.head_size": (0,),
    }
)

_ACTIVATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    dict.fromkeys(("gemma2", "gemma3", "gemma4"), ("gelu_pytorch_tanh", "gelu_tanh"))
)
_USUAL_ACTIVATIONS = ("silu", "swish")


def one_value(value: MetadataValue) -> MetadataValue:
    """A value itself; of an array that repeats one number, layer by layer, that number."""
    if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
        number: bool | int | float = value[0].item()
        return number
    return value


def shown(value: object) -> str:
    """A value of a file in a message."""
    if isinstance(value, np.ndarray | list):
        kind = value.dtype if isinstance(value, np.ndarray) else "str"
        return f"an array of {len(value)} {kind}"
    return repr(value)[:80]


def refusal(
    metadata: Mapping[str, MetadataValue], read: Collection[str], config: ModelConfig
) -> str:
    """Say why the file is another model than its `config` alone says; "" if it is not.

    `read` are the keys that made the config.
    """
    prefix = f"{config.architecture}."
    for key, raw in metadata.items():
        name = key.removeprefix(prefix)
        if key in read or name == key:
            continue
        here = (config.architecture, name)
        if here in _HARMLESS_HERE or (name in _HARMLESS and here not in _HARMLESS_BUT_HERE):
            continue
        value = one_value(raw)
        without_effect = _WITHOUT_EFFECT.get(name)
        if name in _OF_EXPERTS:
            if config.mixture is None:
                continue
            without_effect = _OF_EXPERTS[name]
            if name == _NORMED and config.architecture not in ("olmoe", "deepseek2"):
                continue  # their factors add up to 1 whatever it says
        if name == "hidden_activation":
            without_effect = _ACTIVATIONS.get(config.architecture, _USUAL_ACTIVATIONS)
        found = f"metadata {key!r} is {shown(value)}"
        if name == "attention.sliding_window":
            if not _hides_nothing(value, config.context):
                return f"{found} in a context of {config.context}: only full attention is supported"
        elif name == "attention.head_dim":  # Ollama's, beside key_length
            if value != config.head_dim:
                return f"{found}, other keys say {config.head_dim}: one of them is wrong"
        elif name == "attention.scale":
            if not _is_usual_scale(value, config.score_scale):
                usual = f"{config.score_scale:.6g}"
                if config.attention_scale is None:
                    usual = f"1/sqrt(head size), {usual} here,"
                return f"{found}: only {usual} is supported"
        elif without_effect is None:
            return (
                f"{found}: Octavo does not know this key, and leaving it out could change the "
                f"answers; where it changes none, `gguf-new-metadata --remove-metadata {key}` (of "
                "the Python package gguf) writes the file without it"
            )
        elif isinstance(value, np.ndarray | list) or value not in without_effect:
            only = " or ".join(map(str, without_effect))
            return f"{found}: only {only} is supported; leaving it out would change the answers"
    return ""


def _hides_nothing(window: MetadataValue, context: int) -> bool:
    """0 is no window, and one as long as the context shows every token."""
    return isinstance(window, int | float) and (window <= 0 or window >= context)


def _is_usual_scale(scale: MetadataValue, usual: float) -> bool:
    """0 means the usual one. Compared as float32, which the kernels take."""
    same = isinstance(scale, int | float) and np.float32(scale) == np.float32(usual)
    return same or scale == 0
