"""The rotary embedding that a config.json asks for, in the old form and in transformers 5's.

Old: `rope_theta`, `rope_scaling` with `type` or `rope_type`. New: `rope_parameters` with
`rope_theta` and `rope_type`, in models with windows one for each type of layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from octavo.errors import ModelFormatError
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.keys import refusal
from octavo.weights.rope_scaling import (
    RopeScaling,
    llama3_factors,
    longrope_amplitude,
    yarn_amplitude,
    yarn_factors,
)

_KINDS = "default, linear, dynamic, llama3, yarn, longrope and proportional"
_ORIGINAL = "original_max_position_embeddings"
_FROM_ORIGINAL = ("llama3", "yarn", "longrope", "su")
LONGEST = 2**32


@dataclass(frozen=True, slots=True)
class Rope:
    context: int  # up to which it is right
    scaling: RopeScaling = field(default_factory=RopeScaling)
    longest: str = ""  # why no longer context can be asked for
    unsupported: str = ""


def parameters(config: Fields, layer_type: str | None) -> Fields | None:
    """What the config says of the scaling, wherever it says so; None if nothing.

    `layer_type` is whose, in models that have several.
    """
    old = config.fields("rope_scaling") if config.has("rope_scaling") else None
    if not config.has("rope_parameters"):
        return old
    found = config.fields("rope_parameters")
    if layer_type is not None:
        found = found.fields(layer_type)
    if old is not None and (layer_type is not None or dict(old.values) != dict(found.values)):
        raise ModelFormatError(
            f"{config.said('rope_scaling')}, and there are rope_parameters: one of them is wrong"
        )
    return found


def check_original(config: Fields, found: Fields | None) -> None:
    """Refuse an original context beside parameters where transformers reads that within them: in
    models with parameters for each type of layer."""
    if found is None or not config.has(_ORIGINAL):
        return
    kind = found.text("rope_type", default=found.text("type", default="default"))
    if kind in _FROM_ORIGINAL and found.get(_ORIGINAL) != config.get(_ORIGINAL):
        raise ModelFormatError(
            f"{config.said(_ORIGINAL)}: expected it within the parameters of a rotary embedding"
        )


def base(config: Fields, found: Fields | None, name: str) -> float:
    """The base: from the parameters `found`, or from the field `name` of the config."""
    inner = None
    if found is not None and found.has("rope_theta"):
        inner = _from_1(found, "rope_theta")
    if inner is None or config.has(name):
        outer = _from_1(config, name)
        if inner not in (None, outer):
            raise ModelFormatError(
                f"{config.said(name)}, rope_parameters say {inner:g}: one of them is wrong"
            )
        return outer
    return inner


def rope(config: Fields, found: Fields | None, base: float, rotary_dim: int, context: int) -> Rope:
    """What the parameters ask for, `found` as `parameters` gives them; the config has `context`."""
    config.read.add(_ORIGINAL)
    if found is None:
        return Rope(context)
    kind = found.text("rope_type", default=found.text("type", default="default"))
    outer = _outer_original(config, found, kind)
    if found.has("type") and found.text("type") != kind:
        raise ModelFormatError(f"{found.said('type')}, rope_type is {kind!r}: one is wrong")
    found.read.update(("rope_theta", "factor", _ORIGINAL))
    where = found if outer is None else config
    original = where.whole(_ORIGINAL, context, least=2)
    if original > LONGEST:
        raise where.wrong(_ORIGINAL, f"at most {LONGEST}")
    longest = ""
    match kind:
        case "default":
            scaling = RopeScaling()
        case "linear":
            scaling = RopeScaling(rope_scale=_above_0(found, "factor"))
        case "dynamic":  # as trained, up to the context it was trained for
            scaling, context = RopeScaling(), min(context, original)
            longest = "its dynamic RoPE scaling beyond them is not supported"
        case "llama3":
            scaling = _llama3(found, base, rotary_dim, original)
        case "yarn":
            scaling = _yarn(found, base, rotary_dim, original, context)
            if found.has("factor"):
                context = max(context, int(original * min(found.real("factor"), 2**16)))
        case "longrope" | "su":
            scaling = _longrope(found, rotary_dim, original, context)
        case "proportional":
            scaling = _proportional(found, rotary_dim)
        case _:
            name = "rope_type" if found.has("rope_type") else "type"
            return Rope(context, unsupported=f"{found.said(name)}: {_KINDS} are supported")
    return Rope(context, scaling, longest, refusal(found))


def _outer_original(config: Fields, found: Fields, kind: str) -> object:
    """Phi-3's, which goes before the parameters' own: where silence has a meaning, that too."""
    if kind not in _FROM_ORIGINAL or config.default(_ORIGINAL) is None:
        return config.get(_ORIGINAL)
    outer = config.whole(_ORIGINAL, least=2)
    if _ORIGINAL in config.assumed and found.get(_ORIGINAL) not in (None, outer):
        raise ModelFormatError(
            f"{found.said(_ORIGINAL)}, and beside it nothing says so, which means {outer}: one of "
            "them is wrong"
        )
    return outer


def _llama3(found: Fields, base: float, rotary_dim: int, original: int) -> RopeScaling:
    factor = _above_0(found, "factor")
    low, high = _above_0(found, "low_freq_factor"), _above_0(found, "high_freq_factor")
    if low >= high:
        raise ModelFormatError(
            f"{found.said('low_freq_factor')}: expected less than high_freq_factor, {high:g}"
        )
    factors = llama3_factors(base, rotary_dim, factor=factor, original=original, low=low, high=high)
    return RopeScaling(rope_factors=factors)


def _yarn(found: Fields, base: float, rotary_dim: int, original: int, context: int) -> RopeScaling:
    if base <= 1:
        raise ModelFormatError(f"{found.where}: rope_theta is {base:g}: expected more than 1")
    factor = _above_0(found, "factor") if found.has("factor") else context / original
    fast, slow = _above_0_or(found, "beta_fast", 32), _above_0_or(found, "beta_slow", 1)
    factors = yarn_factors(
        base, rotary_dim, factor=factor, original=original, fast=fast, slow=slow,
        truncate=found.flag("truncate", default=True),
    )  # fmt: skip
    scales = found.get("mscale"), found.get("mscale_all_dim")
    if all(scales):  # one alone does nothing, nor does 0
        scales = _above_0(found, "mscale"), _above_0(found, "mscale_all_dim")
    amplitude = yarn_amplitude(factor, *scales) if all(scales) else yarn_amplitude(factor)
    return RopeScaling(
        rope_factors=factors, rope_amplitude=_above_0_or(found, "attention_factor", amplitude)
    )


def _longrope(found: Fields, rotary_dim: int, original: int, context: int) -> RopeScaling:
    """Two lists: one of them is chosen by the context that a model is loaded with."""
    pairs = rotary_dim // 2
    short, long = (found.numbers(name, pairs) for name in ("short_factor", "long_factor"))
    factor = _above_0(found, "factor") if found.has("factor") else context / original
    amplitude = longrope_amplitude(factor, original)
    return RopeScaling(
        rope_factors=short,
        rope_amplitude=_above_0_or(found, "attention_factor", amplitude),
        long_rope_factors=long,
        original_context=original,
    )


def _proportional(found: Fields, rotary_dim: int) -> RopeScaling:
    """The first pairs turn, as all would; the others do not."""
    part = found.real("partial_rotary_factor", 1.0)
    if not 0 < part <= 1:
        raise found.wrong("partial_rotary_factor", "a number above 0, at most 1")
    factor = _above_0(found, "factor") if found.has("factor") else 1.0
    rotated = int(part * rotary_dim // 2)
    fixed = rotary_dim // 2 - rotated
    return RopeScaling(rope_factors=(factor,) * rotated + (math.inf,) * fixed)


def _from_1(found: Fields, name: str) -> float:
    """Below 1 waves would be the shorter the later their pair, until no float holds one."""
    value = _above_0(found, name)
    if value < 1:
        raise found.wrong(name, "a number from 1")
    return value


def _above_0(found: Fields, name: str) -> float:
    return _above_0_or(found, name, None)


def _above_0_or(found: Fields, name: str, default: float | None) -> float:
    value = found.real(name, default)
    if not 0 < value < math.inf:
        raise found.wrong(name, "a number above 0")
    return value
