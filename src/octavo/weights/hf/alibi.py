"""What a config.json says of scores that fall with distance, and in its own way in MPT and OPT.

Comes in: fields. Goes out: the slopes of heads, numbers of `ModelConfig`, and why a model is not
run, if it is not.
"""

from __future__ import annotations

import math
from typing import Any

from octavo.model.config import MOST_HEADS
from octavo.program.slopes import Slopes, alibi_slopes
from octavo.weights.hf.family import Family
from octavo.weights.hf.json_fields import Fields, shown_json
from octavo.weights.hf.keys import refusal

_ATTENTION = "attn_config"
_MOST = 1e4  # far above any bias_max
# What MPT's own fields must say, whatever else they could.
_ONLY: dict[str, tuple[object, ...]] = {
    "no_bias": (True,),
    "norm_type": ("low_precision_layernorm", "layernorm"),
}
_ONLY_IN_ATTENTION: dict[str, tuple[object, ...]] = {
    "alibi": (True,),
    "attn_type": ("multihead_attention",),
    "attn_uses_sequence_id": (False,),
    "prefix_lm": (False,),
    "qk_ln": (False,),
}
_WAYS_TO_COMPUTE = ("attn_impl", "attn_pdrop", "_name_or_path", "model_type")


def slopes(fields: Fields, family: Family, heads: int) -> Slopes | None:
    """Those of the query heads; None where positions are of another kind."""
    match family.architecture:
        case _ if heads > MOST_HEADS:  # which the config refuses
            return None
        case "bloom":
            return Slopes(alibi_slopes(heads))
        case "mpt":
            inner = attention_fields(fields)
            most = inner.real("alibi_bias_max", 8.0)
            if not 0 < most < _MOST:
                raise inner.wrong("alibi_bias_max", "a number above 0")
            return Slopes(alibi_slopes(heads, most))
        case "falcon" if fields.flag("alibi", default=False):
            fields.read.update(("rope_theta", "rope_scaling", "rope_parameters"))
            return Slopes(alibi_slopes(heads), rounded=True)
    return None


def attention_fields(fields: Fields) -> Fields:
    """MPT's, which stand in an object of their own."""
    return fields.fields(_ATTENTION) if fields.has(_ATTENTION) else Fields(fields.where, {})


def mpt(fields: Fields, family: Family) -> tuple[dict[str, Any], str]:
    """The limit of q, k and v and the scale of scores, and why the model is not run."""
    if family.architecture != "mpt":
        return {}, ""
    fields.read.add(_ATTENTION)
    inner = attention_fields(fields)
    found: dict[str, Any] = {}
    for name, ours in (("clip_qkv", "qkv_limit"), ("softmax_scale", "attention_scale")):
        if inner.get(name):  # 0 is none, too
            if not 0 < (value := inner.real(name)) < math.inf:
                raise inner.wrong(name, "a number above 0, or null")
            found[ours] = value
    inner.read.update(("alibi_bias_max", *_WAYS_TO_COMPUTE))
    why = _other(fields, _ONLY) or _other(inner, _ONLY_IN_ATTENTION) or refusal(inner)
    return found, why


def opt(fields: Fields, family: Family, hidden: int) -> dict[str, Any]:
    """How wide rows of tokens are, where norms stand, and whether they have weights."""
    if family.architecture != "opt":
        return {}
    width = fields.whole("word_embed_proj_dim", hidden, least=1)
    return {
        "embedding_size": 0 if width == hidden else width,
        "norms_last": not fields.flag("do_layer_norm_before", default=True),
        "norm_weights": fields.flag("layer_norm_elementwise_affine", default=True),
    }


def _other(fields: Fields, only: dict[str, tuple[object, ...]]) -> str:
    for name, known in only.items():
        if fields.get(name) is not None and fields.get(name) not in known:
            return f"{fields.said(name)}: only {' or '.join(map(shown_json, known))} is supported"
    return ""
