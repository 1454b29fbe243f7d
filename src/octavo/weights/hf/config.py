"""From config.json to a `ModelConfig`: which field is which number, and what silence means.

Knows fields and the defaults of transformers. Knows nothing of tensors; `rope` reads the rotary
embedding, `keys` knows the fields that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import MOST_LAYERS, NO_MORE_POSITIONS, ModelConfig
from octavo.program.ops import ActivationKind
from octavo.values import is_number
from octavo.weights.hf.alibi import mpt, opt, slopes
from octavo.weights.hf.experts import mixture
from octavo.weights.hf.families import FAMILIES, family_of
from octavo.weights.hf.family import Family
from octavo.weights.hf.gpt_config import parallel_norms, shared_heads
from octavo.weights.hf.hybrid import all_unturned, check_dense
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.keys import refusal
from octavo.weights.hf.latent import latent, score_scale
from octavo.weights.hf.rope import LONGEST, Rope, base, check_original, parameters, rope
from octavo.weights.hf.scales import by_position, scales
from octavo.weights.hf.uneven import full_sizes, uneven
from octavo.weights.hf.uneven import scales as uneven_scales
from octavo.weights.hf.windows import FULL, WINDOWED, Layers, unturned, windows
from octavo.weights.rope_scaling import RopeScaling

_MOST_HEAD_DIM = 1 << 16


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
    kv_heads = shared_heads(fields, family, heads)
    rows, why_not = latent(fields, heads) if family.is_latent else (None, "")
    if rows is not None:
        kv_heads = 1
    elif not fields.has("head_dim") and "head_dim" not in family.assumed and hidden % heads:
        whole = family.their_field("hidden_size")
        raise fields.wrong(
            family.their_field("num_attention_heads"), f"a divisor of {whole}, {hidden}"
        )
    head_dim = rows.head_dim if rows else size("head_dim", hidden // heads)
    # Before a table is made of so many.
    if rows is None and (head_dim % 2 or head_dim > _MOST_HEAD_DIM):
        raise fields.wrong("head_dim", f"an even number, at most {_MOST_HEAD_DIM}")
    of_windowed = head_dim, kv_heads
    if family.is_uneven:
        head_dim, kv_heads = full_sizes(fields, head_dim, kv_heads)
    context = size("max_position_embeddings")
    if context > LONGEST:  # before scalings divide by it
        raise fields.wrong(family.their_field("max_position_embeddings"), f"at most {LONGEST}")
    scaled = scales(fields, family.scales, head_dim)
    if limit := _limit(fields, family.qkv_limit):
        scaled["qkv_limit"] = limit
    if family.is_uneven:
        scaled |= uneven_scales(fields)
    rotary_dim, rope_base, turned = head_dim, 10000.0, Rope(context, longest=NO_MORE_POSITIONS)
    falling = slopes(fields, family, heads)
    if falling is not None:
        turned = Rope(context)
    elif family.has_rope:
        found = parameters(fields, FULL if family.local_base else None)
        if family.must_scale and found is None:
            raise fields.wrong("rope_parameters", "how positions are scaled")
        if family.local_base:
            check_original(fields, found)
        rotary_dim = _rotary_dim(fields, found, head_dim) if family.partial_rotary else head_dim
        rope_base = base(fields, found, "rope_theta")
        if rows is not None:
            rotary_dim, scaled = rows.turned, {"attention_scale": score_scale(found, head_dim)}
        if family.position_scaled:
            scaled |= by_position(fields, found)
        turned = rope(fields, found, rope_base, rotary_dim, context)
    still = unturned(fields, layers) if family.has_unturned else ()
    if family.is_hybrid:
        check_dense(fields)
        still = all_unturned(fields, layers)
    window, windowed = windows(fields, family.windowed, layers, still, turned.context)
    local_base, unsupported = None, turned.unsupported
    if family.local_base:
        local_base, why = _local_base(fields, family, windowed, of_windowed[0], context)
        unsupported = why or unsupported
    elif window >= turned.context:  # no layer turns otherwise, and it hides nothing
        window, windowed = 0, ()
    experts, why = mixture(fields, family.experts, layers=layers, hidden=hidden)
    own, other = mpt(fields, family)
    scaled |= own | opt(fields, family, hidden)
    sizes = None
    if family.is_uneven:
        sizes, why = uneven(fields, *of_windowed)
        if windowed and windowed[-1]:
            raise fields.wrong("layer_types", f"{FULL} at the end, as transformers makes it")
    return ModelConfig(
        architecture=family.architecture,
        num_layers=layers,
        hidden_size=hidden,
        ffn_size=size("intermediate_size", _ffn_factor(fields, family) * hidden or None),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=size("vocab_size"),
        context=turned.context,
        norm_eps=fields.real(family.their_field("rms_norm_eps")),
        rope_base=rope_base,
        rotary_dim=rotary_dim,
        rope_style="interleaved" if rows else "half",
        tied_head=fields.flag("tie_word_embeddings"),
        qkv_bias=_is_biased(fields, family.qkv_bias),
        output_bias=_is_biased(fields, family.output_bias),
        ffn_bias=_is_biased(fields, family.ffn_bias),
        why_no_longer=turned.longest,
        **asdict(turned.scaling),
        window=window,
        windowed=windowed,
        unturned=still,
        parallel_norms=parallel_norms(fields, family),
        activation=_activation(fields, family),
        qk_norm=family.qk_norm,
        slopes=falling,
        mixture=experts,
        latent=rows,
        uneven=sizes,
        local_rope_base=local_base,
        **scaled,
        unsupported=unsupported or why or why_not or other,
    )


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


def _local_base(
    fields: Fields, family: Family, windowed: Layers, head_dim: int, context: int
) -> tuple[float, str]:
    """Return the base of windowed layers, and why they are not run, if they are not."""
    local, name = None, family.local_base
    if fields.has("rope_parameters"):
        local = parameters(fields, WINDOWED)
    local_base = base(fields, local, name)
    if name == "rope_theta" and any(windowed) and not (local and local.has(name)):
        usual = family.assumed[name]  # transformers 5 has it in these layers, whatever `name` says
        if local_base != usual:
            raise fields.wrong(
                name, f"{usual:g}, or rope_parameters that say it for {WINDOWED} too"
            )
    turned = rope(fields, local, local_base, head_dim, context)
    if turned.scaling == RopeScaling():
        return local_base, turned.unsupported
    return local_base, (
        f"{fields.name_of('rope_parameters')} scales positions of windowed layers: only full "
        "layers' are supported"
    )


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
