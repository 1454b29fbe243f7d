"""What a family of model directories is: names of fields and tensors, there and here.

Knows no family; `families` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from octavo.model.config import ModelConfig
from octavo.program.ops import ActivationKind
from octavo.weights.hf.experts import ExpertFields
from octavo.weights.hf.windows import Rule
from octavo.weights.weight_view import Views

EVERY: Mapping[str, float | bool | str] = MappingProxyType(
    {
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0,
        "hidden_act": "silu",
    }
)  # fmt: skip

GRANITE_SCALES: Mapping[str, float] = MappingProxyType(
    dict.fromkeys(
        ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"),
        1.0,
    )
)

# What most families have around their MLPs.
ATTENTION: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
    }
)
QK_NORMS: Mapping[str, str] = MappingProxyType(
    {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
)

TOP: Mapping[str, str] = MappingProxyType(
    {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output_norm.bias": "model.norm.bias",
        "output.weight": "lm_head.weight",
    }
)

# Names without a ".weight": all experts' matrices where transformers saves them as it has them, and
# sinks. Biases of such are _bias.
_BARE = ("experts.gate_up_proj", "experts.down_proj", "self_attn.sinks", "layer_scalar")
_BARE_BIAS = tuple(f"{name}_bias" for name in _BARE)


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
    other_type: str = ""  # the model_type of other models of the class
    activation: str = "hidden_act"  # the field that names it
    activations: tuple[str, ...] = ("silu", "swish")
    ungated: Mapping[str, ActivationKind] = field(
        default_factory=dict
    )  # instead, if it has no gate
    qkv_bias: bool | str = False  # or the field that says so, as in the next two
    output_bias: bool | str = False
    ffn_bias: bool | str = False
    field_names: Mapping[str, str] = field(default_factory=dict)  # usual -> theirs, if not so
    field_aliases: Mapping[str, str] = field(default_factory=dict)  # others of theirs -> theirs
    ignored: tuple[str, ...] = ()  # fields that mean something elsewhere, and that nobody reads
    ffn_factor: int | str = 0  # the MLP's size in hidden ones, where no field says it, or the
    # field that says it in them
    has_multi_query: bool = False  # a flag says whether there is one KV head or as many as heads
    has_groups_if_said: bool = False  # rows of q, k, v are by group where a field says KV heads
    has_rope: bool = True  # or else a table of positions, or slopes
    norm_offset: float = 0.0  # added to the weights of norms
    partial_rotary: bool = False  # fewer dims of a head may turn than it has
    qk_norm: bool = False  # q and k are normed before they turn
    local_base: str = ""  # of windowed layers that turn by their own: the field in the old form
    scales: tuple[str, ...] = ()  # fields that multiply and cap
    position_scaled: bool = False  # queries are multiplied by more, the later they are
    some_without_rope: bool = False  # layers may have no rotary embedding
    is_uneven: bool = False  # full layers have other sizes than windowed ones (`uneven`)
    must_scale: bool = False  # the file must say how positions are scaled
    quantised: tuple[str, ...] = ()  # ways of quantisation_config that are read
    is_hybrid: bool = False  # Mamba's layers and experts may be there; only those without are run
    windowed: Rule = "all"  # layers, where the file does not list them
    experts: ExpertFields | None = None  # of those whose layers have experts
    is_latent: bool = False  # pages keep a latent row in place of heads' K and V
    expert_names: Mapping[str, str] = field(default_factory=dict)  # of one expert's tensors
    qkv_limit: str = ""  # the field that says within what q, k and v are kept
    part: str = ""  # of config.json that has the fields of the text model; "": it is the whole
    part_type: str = ""  # the model_type there, where it is not said
    other_parts: tuple[Family, ...] = ()  # of the class, with text models of other types
    prefix: str = ""  # of the names of its tensors
    top_names: Mapping[str, str] = field(default_factory=lambda: TOP)
    layers: str = "model.layers."
    other_names: Mapping[str, str] = field(default_factory=dict)  # theirs -> `layer_names`' key
    may_lack: str = ""  # the beginning of names that some files leave out
    left_out: tuple[str, ...] = ()  # prefixes of those of other parts
    needs: tuple[str, ...] = ()  # fields that elsewhere follow from others
    views: Callable[[ModelConfig], Views] = each_by_itself
    assumed: Mapping[str, float | bool | str] = field(default_factory=lambda: EVERY)

    @property
    def model_types(self) -> tuple[str, ...]:
        return (self.model_type, self.other_type) if self.other_type else (self.model_type,)

    def their_field(self, name: str) -> str:
        """What the field is called that elsewhere has the usual `name`."""
        return self.field_names.get(name, name)

    def their_name(self, name: str) -> str:
        """The tensor in the directory that is the program's weight."""
        if name in self.top_names:
            return self.prefix + self.top_names[name]
        _, layer, part, *expert, kind = name.split(".")
        theirs = self.expert_names[part].format(*expert) if expert else self.layer_names[part]
        suffix = f".{kind}"
        if theirs.endswith(_BARE):
            suffix = "_bias" if kind == "bias" else ""
        return f"{self.prefix}{self.layers}{layer}.{theirs}{suffix}"

    def our_name(self, name: str) -> str:
        """The program's weight that a tensor in the directory is; "" if it is none."""
        if not name.startswith(self.prefix):
            return ""
        name = name.removeprefix(self.prefix)
        top = {theirs: ours for ours, theirs in self.top_names.items()}
        if name not in top and not name.startswith(self.may_lack):
            name = self.may_lack + name
        if name in top:
            return top[name]
        parts = {theirs: ours for ours, theirs in self.layer_names.items()}
        parts.update(self.other_names)
        if name.endswith(_BARE):
            name += ".weight"
        elif name.endswith(_BARE_BIAS):
            name = name.removesuffix("_bias") + ".bias"
        layers, number = re.escape(self.layers), "(0|[1-9][0-9]*)"
        found = re.fullmatch(rf"{layers}{number}\.(.+)\.(weight|bias)", name)
        if found is None:
            return ""
        layer, part, kind = found.groups()
        if part in parts:
            return f"blk.{layer}.{parts[part]}.{kind}"
        for ours, theirs in self.expert_names.items():
            before, after = map(re.escape, theirs.split("{}"))
            if expert := re.fullmatch(f"{before}{number}{after}", part):
                return f"blk.{layer}.{ours}.{expert[1]}.{kind}"
        return ""
