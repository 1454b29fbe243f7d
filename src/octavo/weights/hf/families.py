"""The families that are run from model directories: what each is called, there and here.

Tables only: classes of transformers, what their files mean by fields that they leave out, and
which of their tensors is which of the program's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from octavo.errors import UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.weights.hf.windows import Rule
from octavo.weights.weight_orders import phi3
from octavo.weights.weight_view import Views

_EVERY: Mapping[str, float | bool | str] = MappingProxyType(
    {
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0,
        "hidden_act": "silu",
    }
)  # fmt: skip

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LLAMA = {
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
_GEMMA3 = {
    **_LLAMA,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_QWEN3 = {**_LLAMA, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

_PHI3 = {
    **{part: _LLAMA[part] for part in ("attn_norm", "attn_output", "ffn_norm", "ffn_down")},
    "attn_qkv": "self_attn.qkv_proj",
    "ffn_up": "mlp.gate_up_proj",
}

# Tables that older versions saved and that nobody reads: they follow from the config.
_LEFTOVERS = ("rotary_emb.inv_freq",)

_ENCODERS = (
    *("Albert", "Bert", "Deberta", "DistilBert", "Electra", "MPNet", "ModernBert", "NomicBert"),
    *("Roberta", "XLMRoberta"),
)


def each_by_itself(config: ModelConfig) -> Views:
    """Every weight is a tensor of its own, as the program has it."""
    return {}


@dataclass(frozen=True, slots=True)
class Family:
    """`architecture` is the program's; `layer_names` are of tensors, the program's -> theirs; a
    tensor that holds several weights has llama.cpp's name there, and `views` has what is in it."""

    model_type: str
    architecture: str
    layer_names: Mapping[str, str]
    activation: str = "hidden_act"  # the field that names it
    activations: tuple[str, ...] = ("silu", "swish")
    qkv_bias: bool | str = False  # or the field that says so, as in the next two
    output_bias: bool | str = False
    ffn_bias: bool | str = False
    norm_offset: float = 0.0  # added to the weights of norms
    partial_rotary: bool = False  # fewer dims of a head may turn than it has
    qk_norm: bool = False  # each head of q and k is normed before it turns
    has_unturned: bool = False  # layers may have no rotary embedding
    windowed: Rule = "all"  # layers, where the file does not list them
    part: str = ""  # of config.json that has the fields of the text model; "": it is the whole
    prefix: str = ""  # of the names of its tensors
    left_out: tuple[str, ...] = ()  # prefixes of those of other parts
    needs: tuple[str, ...] = ()  # fields that elsewhere follow from others
    views: Callable[[ModelConfig], Views] = each_by_itself
    assumed: Mapping[str, float | bool | str] = field(default_factory=lambda: _EVERY)

    def their_name(self, name: str) -> str:
        """The tensor in the directory that is the program's weight."""
        if name in _TOP:
            return self.prefix + _TOP[name]
        _, layer, part, kind = name.split(".")
        return f"{self.prefix}model.layers.{layer}.{self.layer_names[part]}.{kind}"

    def our_name(self, name: str) -> str:
        """The program's weight that a tensor in the directory is; "" if it is none."""
        if not name.startswith(self.prefix):
            return ""
        name = name.removeprefix(self.prefix)
        top = {theirs: ours for ours, theirs in _TOP.items()}
        if name in top:
            return top[name]
        parts = {theirs: ours for ours, theirs in self.layer_names.items()}
        found = re.fullmatch(r"model\.layers\.(0|[1-9][0-9]*)\.(.+)\.(weight|bias)", name)
        if found is None or found[2] not in parts:
            return ""
        return f"blk.{found[1]}.{parts[found[2]]}.{found[3]}"


_GEMMA3_TEXT = Family(
    "gemma3_text", "gemma3", _GEMMA3, activation="hidden_activation",
    activations=("gelu_pytorch_tanh",), norm_offset=1.0, windowed="all but every nth",
    needs=("num_key_value_heads", "head_dim"),
    assumed={
        "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "sliding_window": 4096, "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
    },
)  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "LlamaForCausalLM": Family(
            "llama", "llama", _LLAMA,
            qkv_bias="attention_bias", output_bias="attention_bias", ffn_bias="mlp_bias",
        ),
        "MistralForCausalLM": Family(
            "mistral", "llama", _LLAMA, needs=("num_key_value_heads",),
            assumed={**_EVERY, "sliding_window": 4096},
        ),
        "Qwen2ForCausalLM": Family(
            "qwen2", "qwen2", _LLAMA, qkv_bias=True, needs=("num_key_value_heads",),
            windowed="later",
            assumed={
                **_EVERY, "use_sliding_window": False, "max_window_layers": 28,
                "sliding_window": 4096,
            },
        ),
        "Qwen3ForCausalLM": Family(
            "qwen3", "qwen3", _QWEN3, qk_norm=True, needs=("num_key_value_heads",),
            windowed="later",
            assumed={
                **_EVERY, "head_dim": 128, "use_sliding_window": False, "max_window_layers": 28,
                "sliding_window": 4096,
            },
        ),
        "SmolLM3ForCausalLM": Family(
            "smollm3", "smollm3", _LLAMA, has_unturned=True, windowed="unturned",
            needs=("num_key_value_heads",),
            assumed={
                **_EVERY, "tie_word_embeddings": True, "rope_theta": 2e6,
                "use_sliding_window": False, "no_rope_layer_interval": 4,
            },
        ),
        "Phi3ForCausalLM": Family(
            "phi3", "phi3", _PHI3, partial_rotary=True, views=phi3,
            assumed={**_EVERY, "rms_norm_eps": 1e-5},
        ),
        "Gemma3ForCausalLM": _GEMMA3_TEXT,
        "Gemma3ForConditionalGeneration": replace(
            _GEMMA3_TEXT, model_type="gemma3", part="text_config", prefix="language_model.",
            left_out=("vision_tower.", "multi_modal_projector."), needs=(),
            assumed={
                **_GEMMA3_TEXT.assumed, "vocab_size": 262208, "num_attention_heads": 8,
                "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
            },
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
    raise UnsupportedModelError(f"architecture {class_name!r} is not supported: {known} are")


def is_leftover(name: str) -> bool:
    return name.endswith(_LEFTOVERS)
