"""What the rows of a config.json's model know of their positions: how heads turn or scores fall,
which layers see a window, and how long a sequence may be.

Comes in: fields and the sizes of heads. Goes out: fields of `ModelConfig`. `rope` reads one rotary
embedding, `windows` the lists of layers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from octavo.errors import ModelFormatError
from octavo.model.config import NO_MORE_POSITIONS
from octavo.weights.hf.alibi import slopes
from octavo.weights.hf.family import Family
from octavo.weights.hf.heads import Heads
from octavo.weights.hf.hybrid import all_without_rope, check_dense
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.latent import score_scale
from octavo.weights.hf.rope import LONGEST, Rope, base, check_original, parameters, rope
from octavo.weights.hf.scales import by_position
from octavo.weights.hf.windows import FULL, WINDOWED, Layers, windows, without_rope
from octavo.weights.rope_scaling import RopeScaling

_UNUSED_BASE = 10000.0  # of models that turn nothing


@dataclass(frozen=True, slots=True)
class Positions:
    """Fields of `ModelConfig`, and why the model is not run, if it is not."""

    fields: dict[str, Any]
    unsupported: str


def positions(fields: Fields, family: Family, heads: Heads, layers: int) -> Positions:
    """Read how positions count. Raises ModelFormatError, UnsupportedModelError."""
    context = fields.whole(family.their_field("max_position_embeddings"), least=1)
    if context > LONGEST:  # before scalings divide by it
        raise fields.wrong(family.their_field("max_position_embeddings"), f"at most {LONGEST}")
    rotary, found = _rotary(fields, family, heads, context)
    without = _without_rope(fields, family, layers)
    window, windowed = windows(fields, family.windowed, layers, without, rotary.context)
    local_base, unsupported = None, rotary.unsupported
    if family.local_base:
        local_base, why = _local_base(fields, family, windowed, heads.of_windowed[0], context)
        unsupported = why or unsupported
    elif window >= rotary.context:  # no layer has another RoPE, and it hides nothing
        window, windowed = 0, ()
    if family.is_uneven and windowed and windowed[-1]:
        raise fields.wrong("layer_types", f"{FULL} at the end, as transformers makes it")
    found |= asdict(rotary.scaling)
    found |= {"context": rotary.context, "why_no_longer": rotary.longest, "without_rope": without}
    found |= {"window": window, "windowed": windowed, "local_rope_base": local_base}
    return Positions(found, unsupported)


def _rotary(
    fields: Fields, family: Family, heads: Heads, context: int
) -> tuple[Rope, dict[str, Any]]:
    """Return the rotary embedding of full layers, and the numbers beside it."""
    said: dict[str, Any] = {
        "rope_base": _UNUSED_BASE,
        "rotary_dim": heads.head_dim,
        "rope_style": "interleaved" if heads.latent else "half",
        "slopes": slopes(fields, family, heads.heads),
    }
    if said["slopes"] is not None:
        return Rope(context), said
    if not family.has_rope:
        return Rope(context, longest=NO_MORE_POSITIONS), said
    found = parameters(fields, FULL if family.local_base else None)
    if family.must_scale and found is None:
        raise fields.wrong("rope_parameters", "how positions are scaled")
    if family.local_base:
        check_original(fields, found)
    if family.partial_rotary:
        said["rotary_dim"] = _rotary_dim(fields, found, heads.head_dim)
    said["rope_base"] = base(fields, found, "rope_theta")
    if heads.latent is not None:
        said["rotary_dim"] = heads.latent.qk_rope_head_dim
        said["attention_scale"] = score_scale(found, heads.head_dim)
    if family.position_scaled:
        said |= by_position(fields, found)
    return rope(fields, found, said["rope_base"], said["rotary_dim"], context), said


def _without_rope(fields: Fields, family: Family, layers: int) -> Layers:
    """Return which layers have no rotary embedding."""
    if family.is_hybrid:
        check_dense(fields)
        return all_without_rope(fields, layers)
    return without_rope(fields, layers) if family.some_without_rope else ()


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
    rotary = rope(fields, local, local_base, head_dim, context)
    if rotary.scaling == RopeScaling():
        return local_base, rotary.unsupported
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
