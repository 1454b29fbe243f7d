"""Gemma 4's fields: what its full layers have of another size, and which layers store no K and V.

transformers says the sizes of full layers in fields of their own, or since 5.2 in one object for
each of these layers. Knows no tensor.
"""

from __future__ import annotations

from typing import Any

from octavo.errors import ModelFormatError
from octavo.model.uneven import Uneven
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.windows import FULL

_BY_LAYER = "per_layer_config"
_MOST_HEAD_DIM = 1 << 16
_CAP = "final_logit_softcapping"


def full_sizes(fields: Fields, head_dim: int, kv_heads: int) -> tuple[int, int]:
    """Head size and KV heads of full layers, where those are the windowed layers'."""
    dim = fields.whole("global_head_dim", least=2)
    named = fields.get("num_global_key_value_heads")
    if fields.has(_BY_LAYER):
        dim, kv_heads = _by_layer(fields, head_dim, kv_heads)
    elif named is not None and _values_are_keys(fields):
        kv_heads = fields.whole("num_global_key_value_heads", least=1)
    if dim % 2 or dim > _MOST_HEAD_DIM:
        raise fields.wrong("global_head_dim", f"an even number, at most {_MOST_HEAD_DIM}")
    return dim, kv_heads


def _by_layer(fields: Fields, head_dim: int, kv_heads: int) -> tuple[int, int]:
    by_layer = fields.fields(_BY_LAYER)
    each = [by_layer.fields(name) for name in by_layer.values]
    found = {
        (
            one.whole("head_dim", head_dim, least=2),
            one.whole("num_key_value_heads", kv_heads, least=1),
        )
        for one in each
    }
    kinds = fields.texts("layer_types")
    full = {str(layer) for layer, kind in enumerate(kinds) if kind == FULL}
    known = all({*one.values} <= {"head_dim", "num_key_value_heads"} for one in each)
    if len(found) != 1 or {*by_layer.values} != full or not known:
        raise ModelFormatError(
            f"{fields.name_of(_BY_LAYER)}: expected one head_dim and num_key_value_heads for all "
            f"layers that are {FULL}, and for no others"
        )
    return found.pop()


def uneven(fields: Fields, head_dim: int, kv_heads: int) -> tuple[Uneven, str]:
    """What is beside the sizes of full layers, which windowed layers have of `head_dim` and
    `kv_heads`; and what of it is not run."""
    rows, vocab = fields.whole("vocab_size_per_layer_input", least=1), fields.whole("vocab_size")
    width = fields.whole("hidden_size_per_layer_input", least=0)
    why = ""
    if width and rows != vocab:
        why = f"{fields.said('vocab_size_per_layer_input')}: only vocab_size, {vocab}, is supported"
    if fields.flag("enable_moe_block", default=False):
        why = f"{fields.said('enable_moe_block')}: only models without experts are supported"
    fields.read.update(("num_experts", "top_k_experts", "moe_intermediate_size"))
    seen = fields.get("use_bidirectional_attention")
    fields.read.add("use_bidirectional_attention")
    if seen not in (None, False, "vision"):  # images see each other; there are none
        why = f"{fields.said('use_bidirectional_attention')}: only null or vision is supported"
    wide = fields.flag("use_double_wide_mlp", default=False)
    return Uneven(
        windowed_head_dim=head_dim,
        windowed_kv_heads=kv_heads,
        sharing=fields.whole("num_kv_shared_layers", least=0),
        ffn_factor_of_sharing=2 if wide else 1,
        layer_embedding=width,
        values_are_keys=_values_are_keys(fields),
    ), why


def scales(fields: Fields) -> dict[str, Any]:
    """Scores are not scaled; silence or null means that logits have no cap."""
    cap = 0.0 if fields.get(_CAP) is None else fields.real(_CAP)
    return {"attention_scale": 1.0, "logit_softcap": cap}


def _values_are_keys(fields: Fields) -> bool:
    return fields.flag("attention_k_eq_v", default=False)
