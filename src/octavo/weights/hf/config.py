"""From config.json to a `ModelConfig`: which field is which number, and what silence means.

Knows fields and the defaults of transformers. Knows nothing of tensors; `heads` and `positions`
read what attention is made of, `keys` knows the fields that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import MOST_LAYERS, ModelConfig
from octavo.program.ops import ActivationKind
from octavo.values import is_number
from octavo.weights.hf.alibi import mpt, opt
from octavo.weights.hf.experts import mixture
from octavo.weights.hf.families import FAMILIES, family_of
from octavo.weights.hf.family import Family
from octavo.weights.hf.gpt_config import parallel_norms
from octavo.weights.hf.heads import heads_of
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.keys import refusal
from octavo.weights.hf.positions import positions
from octavo.weights.hf.scales import scales
from octavo.weights.hf.uneven import scales as uneven_scales
from octavo.weights.hf.uneven import uneven


def family(fields: Fields) -> Family:
    """Raises ModelFormatError, UnsupportedModelError: also where weights are quantised."""
    classes, model_type = fields.texts("architectures"), fields.text("model_type", default="")
    if classes:
        found = family_of(classes[0])
    else:  # a config saved without its model
        known = [each for each in FAMILIES.values() if model_type in each.model_types]
        if not known:
            raise fields.wrong("architectures", "a list with a class of transformers")
        found = known[0]
    _check_quantised(fields, found)
    if model_type and model_type not in found.model_types:
        raise ModelFormatError(
            f"{fields.said('model_type')}, but architectures is {classes}: expected "
            f"{found.model_type!r}"
        )
    if found.part:
        text = fields.fields(found.part)
        kinds = {each.part_type: each for each in (found, *found.other_parts)}
        kind = text.text("model_type", default=found.part_type)
        if kind not in kinds:
            only = " or ".join(f'"{each}"' for each in kinds)
            raise UnsupportedModelError(
                f"{text.said('model_type')}: only {only} is supported there"
            )
        found = kinds[kind]
    return found


def _check_quantised(fields: Fields, family: Family) -> None:
    name = "quantization_config"
    if not fields.has(name):
        return
    method = fields.fields(name).text("quant_method", default="no known way")
    if method not in family.quantised:
        raise UnsupportedModelError(
            f"{fields.name_of(name)} says that the weights are quantised by {method}: Octavo reads "
            "F32, F16 and BF16"
        )


def model_config(fields: Fields) -> ModelConfig:
    """What it asks for beyond these numbers is its `unsupported`."""
    found = family(fields)
    fields = text_fields(fields, found)
    fields.read.update(found.ignored)
    for name in found.needs:
        if not fields.has(name):
            raise fields.wrong(name, "a whole number")
    config = _config(fields, found)
    refused = config.unsupported or _other_arithmetic(fields, found) or refusal(fields)
    assumed = tuple(f"{name} {_short(value)}" for name, value in fields.assumed.items())
    return replace(config, assumed=assumed, unsupported=refused)


def text_fields(fields: Fields, family: Family) -> Fields:
    """Those of the text model, with what the family means by those that are not there."""
    if not family.part:
        found = Fields(fields.where, _renamed(fields, family), defaults=family.assumed)
        found.read |= fields.read
        return found
    tied, inner = "tie_word_embeddings", dict(fields.fields(family.part).values)
    if fields.has(tied) and inner.setdefault(tied, fields.get(tied)) != fields.get(tied):
        raise ModelFormatError(f"{fields.said(tied)}, in {family.part} it is not: one is wrong")
    found = Fields(fields.where, inner, inside=f"{family.part}.", defaults=family.assumed)
    found.read.add("model_type")
    return found


def _renamed(fields: Fields, family: Family) -> Mapping[str, Any]:
    """The values by the family's names for them, of which some have others."""
    values = dict(fields.values)
    for other, name in family.field_aliases.items():
        value = values.pop(other, None)
        if value is None:
            continue
        if values.get(name) not in (None, value):
            raise ModelFormatError(f"{fields.said(other)}, {fields.said(name)}: one is wrong")
        values[name] = value
    return values


def _config(fields: Fields, family: Family) -> ModelConfig:
    def size(name: str, default: int | None = None) -> int:
        return fields.whole(family.their_field(name), default, least=1)

    hidden, heads, layers = (
        size(name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    if layers > MOST_LAYERS:  # before a list is made of so many
        raise fields.wrong(family.their_field("num_hidden_layers"), f"at most {MOST_LAYERS}")
    of_heads = heads_of(fields, family, hidden, heads)
    placed = positions(fields, family, of_heads, layers)
    experts, no_experts = mixture(fields, family.experts, layers=layers, hidden=hidden)
    parts, no_parts = uneven(fields, *of_heads.of_windowed) if family.is_uneven else (None, "")
    own, not_own = mpt(fields, family)
    numbers = _scales(fields, family, of_heads.head_dim) | placed.fields
    numbers |= own | opt(fields, family, hidden)
    return ModelConfig(
        architecture=family.architecture,
        num_layers=layers,
        hidden_size=hidden,
        ffn_size=size("intermediate_size", _ffn_factor(fields, family) * hidden or None),
        heads=heads,
        kv_heads=of_heads.kv_heads,
        head_dim=of_heads.head_dim,
        vocab_size=size("vocab_size"),
        norm_eps=fields.real(family.their_field("rms_norm_eps")),
        tied_head=fields.flag("tie_word_embeddings"),
        qkv_bias=_is_biased(fields, family.qkv_bias),
        output_bias=_is_biased(fields, family.output_bias),
        ffn_bias=_is_biased(fields, family.ffn_bias),
        parallel_norms=parallel_norms(fields, family),
        activation=_activation(fields, family),
        qk_norm=family.qk_norm,
        mixture=experts,
        latent=of_heads.latent,
        uneven=parts,
        **numbers,
        unsupported=placed.unsupported or no_experts or no_parts or of_heads.unsupported or not_own,
    )


def _scales(fields: Fields, family: Family, head_dim: int) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that multiply, cap and limit."""
    found = scales(fields, family.scales, head_dim)
    if limit := _limit(fields, family.qkv_limit):
        found["qkv_limit"] = limit
    return found | uneven_scales(fields) if family.is_uneven else found


def _ffn_factor(fields: Fields, family: Family) -> int:
    said = family.ffn_factor
    return fields.whole(said, least=1) if isinstance(said, str) else said


def _is_biased(fields: Fields, said: bool | str) -> bool:
    """As the family has it; where a field says so, as that does."""
    return fields.flag(said, default=False) if isinstance(said, str) else said


def _activation(fields: Fields, family: Family) -> ActivationKind:
    """Return the activation of an MLP without a gate; the others have their family's."""
    return family.ungated.get(fields.text(family.activation), "silu") if family.ungated else "silu"


def _limit(fields: Fields, name: str) -> float:
    """Within what q, k and v are kept; 0 where nothing keeps them."""
    if not name or fields.get(name) is None:
        return 0.0
    if not 0 < (limit := fields.real(name)) < math.inf:
        raise fields.wrong(name, "a number above 0, or null")
    return limit


def _other_arithmetic(fields: Fields, family: Family) -> str:
    """Say what the program would compute in another way than these fields ask for."""
    name, known = family.activation, tuple(family.ungated) or family.activations
    if name == "hidden_activation":
        fields.read.add("hidden_act")  # Gemma 2's, which transformers passes over
    if fields.text(name) not in known:
        return f"{fields.said(name)}: only {' or '.join(known)} is supported"
    return ""


def _short(value: object) -> str:
    return f"{value:g}" if is_number(value) else str(value).lower()
