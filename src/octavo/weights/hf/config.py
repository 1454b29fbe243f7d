"""From config.json to a `ModelConfig`: which field is which number, and what silence means.

Knows fields and the defaults of transformers. Knows nothing of tensors; `rope` reads the rotary
embedding, `keys` knows the fields that are left.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.model.gemma3 import attention_scale
from octavo.values import is_number, is_whole
from octavo.weights.hf.families import FAMILIES, Family, family_of
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.keys import refusal
from octavo.weights.hf.rope import base, parameters, rope
from octavo.weights.rope_scaling import RopeScaling

_MOST_HEAD_DIM = 1 << 16
_FULL, _WINDOWED = "full_attention", "sliding_attention"


def family(fields: Fields) -> Family:
    """Raises ModelFormatError, UnsupportedModelError: also where weights are quantised."""
    if fields.has("quantization_config"):
        method = fields.fields("quantization_config").text("quant_method", default="no known way")
        raise UnsupportedModelError(
            f"{fields.name_of('quantization_config')} says that the weights are quantised by "
            f"{method}: Octavo reads F32, F16 and BF16"
        )
    classes, model_type = fields.texts("architectures"), fields.text("model_type", default="")
    if classes:
        found = family_of(classes[0])
    else:  # a config saved without its model
        known = [each for each in FAMILIES.values() if each.model_type == model_type]
        if not known:
            raise fields.wrong("architectures", "a list with a class of transformers")
        found = known[0]
    if model_type not in ("", found.model_type):
        raise ModelFormatError(
            f"{fields.said('model_type')}, but architectures is {classes}: expected "
            f"{found.model_type!r}"
        )
    return found


def model_config(fields: Fields) -> ModelConfig:
    """What it asks for beyond these numbers is its `unsupported`."""
    found = family(fields)
    for name in found.needs:
        fields.whole(name)
    read = fields.read
    fields = Fields(fields.where, fields.values, defaults=found.assumed)
    fields.read |= read
    config = _config(fields, found)
    refused = config.unsupported or _other_arithmetic(fields, found, config) or refusal(fields)
    assumed = tuple(f"{name} {_short(value)}" for name, value in fields.assumed.items())
    return replace(config, assumed=assumed, unsupported=refused)


def _config(fields: Fields, family: Family) -> ModelConfig:
    def size(name: str, default: int | None = None) -> int:
        return fields.whole(name, default, least=1)

    hidden, heads, layers = (
        size(name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    kv_heads = size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.wrong("num_key_value_heads", f"a divisor of the {heads} num_attention_heads")
    if not fields.has("head_dim") and hidden % heads:
        raise fields.wrong("num_attention_heads", f"a divisor of hidden_size, {hidden}")
    head_dim = size("head_dim", hidden // heads)
    if head_dim % 2 or head_dim > _MOST_HEAD_DIM:  # before a table is made of so many
        raise fields.wrong("head_dim", f"an even number, at most {_MOST_HEAD_DIM}")
    context = size("max_position_embeddings")
    if family.architecture == "gemma3":
        windows = _windows(fields, layers, head_dim, context)
    else:
        windows = _one_window(fields, layers, context)
    found = parameters(fields, _FULL if family.architecture == "gemma3" else None)
    rotary_dim = _rotary_dim(fields, found, head_dim) if family.partial_rotary else head_dim
    rope_base = base(fields, found, "rope_theta")
    turned = rope(fields, found, rope_base, rotary_dim, context)
    windows["unsupported"] = windows["unsupported"] or turned.unsupported
    return ModelConfig(
        architecture=family.architecture,
        num_layers=layers,
        hidden_size=hidden,
        ffn_size=size("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=size("vocab_size"),
        context=turned.context,
        norm_eps=fields.real("rms_norm_eps"),
        rope_base=rope_base,
        rotary_dim=rotary_dim,
        rope_style="half",
        tied_head=fields.flag("tie_word_embeddings"),
        qkv_bias=family.qkv_bias,
        why_no_longer=turned.longest,
        **asdict(turned.scaling),
        **windows,
    )


def _windows(fields: Fields, layers: int, head_dim: int, context: int) -> dict[str, Any]:
    """Return which layers are windowed, and how these turn."""
    unsupported, name = "", "_sliding_window_pattern"
    fields.read.update((name, "sliding_window_pattern"))
    every = fields.whole(name if fields.has(name) else "sliding_window_pattern", least=1)
    if fields.has("layer_types"):
        fields.assumed.pop("sliding_window_pattern", None)
        types = _layer_types(fields, layers)
        fitting = [nth for nth in range(1, layers + 2) if types == _every(nth, layers)]
        if fitting:
            every = fitting[0]
        else:
            unsupported = f"{fields.name_of('layer_types')}: only every nth layer full is supported"
    local = None
    if fields.has("rope_parameters"):
        local = parameters(fields, _WINDOWED)
    local_base = base(fields, local, "rope_local_base_freq")
    local_rope = rope(fields, local, local_base, head_dim, context)
    if local_rope.scaling != RopeScaling():
        unsupported = unsupported or (
            f"{fields.name_of('rope_parameters')} scales positions of windowed layers: only full "
            "layers' are supported"
        )
    return {
        "window": fields.whole("sliding_window", least=1),
        "full_every": every,
        "local_rope_base": local_base,
        "unsupported": unsupported or local_rope.unsupported,
    }


def _layer_types(fields: Fields, layers: int) -> list[str]:
    found = fields.texts("layer_types")
    if len(found) != layers or not {*found} <= {_FULL, _WINDOWED}:
        raise fields.wrong("layer_types", f"{_FULL} or {_WINDOWED} for each of {layers} layers")
    return found


def _every(nth: int, layers: int) -> list[str]:
    return [_WINDOWED if (i + 1) % nth else _FULL for i in range(layers)]


def _rotary_dim(fields: Fields, found: Fields | None, head_dim: int) -> int:
    """Dims of a head that turn, by the parameters `found` or by the config's own field."""
    name = "partial_rotary_factor"
    part = fields.real(name, 1.0)
    if found is not None and found.has(name):
        if fields.has(name) and found.real(name) != part:
            raise ModelFormatError(f"{fields.said(name)}, {found.said(name)}: one of them is wrong")
        part, fields = found.real(name), found
    if not 0 < part <= 1 or int(head_dim * part) % 2 or int(head_dim * part) == 0:
        raise fields.wrong(name, f"a part of the {head_dim} of a head that is even")
    return int(head_dim * part)


def _one_window(fields: Fields, layers: int, context: int) -> dict[str, Any]:
    """Return the window of all layers, if they have one; of some only is not supported."""
    none: dict[str, Any] = {"unsupported": ""}
    fields.read.update(("sliding_window", "use_sliding_window"))
    window = fields.values.get("sliding_window")
    if "sliding_window" not in fields.values:
        window = fields.whole("sliding_window", 0)
    if fields.has("layer_types"):
        if _WINDOWED not in _layer_types(fields, layers):
            return none
    elif not window or not fields.flag("use_sliding_window", default=True):
        return none
    if not is_whole(window) or window < 1:
        raise fields.wrong("sliding_window", "a whole number from 1")
    if window >= context or fields.whole("max_window_layers", 0) >= layers:
        return none
    if fields.has("layer_types"):
        in_all = _FULL not in _layer_types(fields, layers)
    else:
        in_all = fields.whole("max_window_layers", 0) == 0
    if in_all:
        return {**none, "window": window, "full_every": layers + 1}
    why = f"{fields.said('sliding_window')}, of {context} tokens: in some layers"
    return {"unsupported": f"{why}, where only in all or in none is supported"}


def _other_arithmetic(fields: Fields, family: Family, config: ModelConfig) -> str:
    """Say what the program would compute in another way than these fields ask for."""
    name = family.activation
    if fields.text(name) not in family.activations:
        return f"{fields.said(name)}: only {' or '.join(family.activations)} is supported"
    if family.architecture == "gemma3":
        asked, done = fields.real("query_pre_attn_scalar"), attention_scale(config)
        if not (asked > 0 and math.isclose(asked**-0.5, done, rel_tol=1e-7)):
            return (
                f"{fields.said('query_pre_attn_scalar')}: only {done**-2:.6g} is supported in a "
                "model of these sizes"
            )
    return ""


def _short(value: object) -> str:
    return f"{value:g}" if is_number(value) else str(value).lower()
