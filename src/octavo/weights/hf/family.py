"""What a family of model directories is: names of fields and tensors, there and here.

Knows no family; `families` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from octavo.model.config import ModelConfig
from octavo.weights.hf.windows import Rule
from octavo.weights.weight_view import Views

EVERY: Mapping[str, float | bool | str] = MappingProxyType(
    {
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0,
        "hidden_act": "silu",
    }
)  # fmt: skip

_TOP: Mapping[str, str] = MappingProxyType(
    {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output_norm.bias": "model.norm.bias",
        "output.weight": "lm_head.weight",
    }
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
    qk_norm: bool = False  # q and k are normed before they turn
    local_base: str = ""  # of windowed layers that turn by their own: the field in the old form
    has_unturned: bool = False  # layers may have no rotary embedding
    windowed: Rule = "all"  # layers, where the file does not list them
    part: str = ""  # of config.json that has the fields of the text model; "": it is the whole
    prefix: str = ""  # of the names of its tensors
    left_out: tuple[str, ...] = ()  # prefixes of those of other parts
    needs: tuple[str, ...] = ()  # fields that elsewhere follow from others
    views: Callable[[ModelConfig], Views] = each_by_itself
    assumed: Mapping[str, float | bool | str] = field(default_factory=lambda: EVERY)

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
