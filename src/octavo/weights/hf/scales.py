"""The fields of a config.json that multiply and cap: which of the model's numbers each is.

Comes in: fields, and the names of those that the family has. Goes out: fields of `ModelConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from octavo.errors import ModelFormatError
from octavo.weights.hf.json_fields import Fields

_BETA, _ORIGINAL = "llama_4_scaling_beta", "original_max_position_embeddings"

# Field -> the config's own, and its value by the field's.
_SCALES: Mapping[str, tuple[str, Callable[[float], float]]] = MappingProxyType(
    {
        "embedding_multiplier": ("embedding_scale", float),
        "residual_multiplier": ("residual_scale", float),
        "attention_multiplier": ("attention_scale", float),
        "logits_scaling": ("logit_scale", lambda value: 1 / value),
        "query_pre_attn_scalar": ("attention_scale", lambda value: value**-0.5),
        "attn_logit_softcapping": ("attention_softcap", float),
        "final_logit_softcapping": ("logit_softcap", float),
    }
)
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")  # null means none, silence does not


def scales(fields: Fields, names: Sequence[str], head_dim: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        ours, value_of = _SCALES[name]
        if name in _CAPS and name in fields.values and fields.get(name) is None:
            continue
        found[ours] = value_of(_above_0(fields, name))
    if found.get("attention_scale") == head_dim**-0.5:  # the usual one
        del found["attention_scale"]
    return found


def by_position(fields: Fields, rope: Fields | None) -> dict[str, Any]:
    """What queries are multiplied by, which stands among the parameters of the embedding."""
    if rope is None:
        raise ModelFormatError(
            f"{fields.name_of('rope_parameters')} is missing: expected an object with {_BETA}"
        )
    rope.read.add("max_position_embeddings")  # transformers passes over it too
    return {
        "position_beta": _above_0(rope, _BETA),
        "position_original": rope.whole(_ORIGINAL, least=1),
    }


def _above_0(fields: Fields, name: str) -> float:
    value = fields.real(name)
    if not 0 < value < math.inf:
        raise fields.wrong(name, "a number above 0")
    return value
