"""The rotary embedding that a config.json asks for, in the old form and in transformers 5's.

Old: `rope_theta`, `rope_scaling` with `type` or `rope_type`. New: `rope_parameters` with
`rope_theta` and `rope_type`, in models with windows one for each type of layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from octavo.errors import ModelFormatError
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.keys import refusal


@dataclass(frozen=True, slots=True)
class Rope:
    base: float
    scale: float = 1.0  # divides positions
    factors: tuple[float, ...] = ()  # divide frequencies
    context: int | None = None  # up to which it is right, if the config says less than it may mean
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


def base(config: Fields, found: Fields | None, name: str) -> float:
    """The base: from the parameters `found`, or from the field `name` of the config."""
    inner = None
    if found is not None and found.has("rope_theta"):
        inner = _above_0(found, "rope_theta")
    if inner is None or config.has(name):
        outer = _above_0(config, name)
        if inner not in (None, outer):
            raise ModelFormatError(
                f"{config.said(name)}, rope_parameters say {inner:g}: one of them is wrong"
            )
        return outer
    return inner


def rope(found: Fields | None, base: float, rotary_dim: int) -> Rope:
    """What the parameters ask for, `found` as `parameters` gives them."""
    if found is None:
        return Rope(base)
    kind = found.text("rope_type", default=found.text("type", default="default"))
    if found.has("type") and found.text("type") != kind:
        raise ModelFormatError(f"{found.said('type')}, rope_type is {kind!r}: one is wrong")
    scale, context = 1.0, None
    factors: tuple[float, ...] = ()
    if kind == "linear":
        scale = _above_0(found, "factor")
    elif kind == "llama3":
        factors = _llama3(found, base, rotary_dim)
    elif kind == "dynamic":  # as trained, up to the context it was trained for
        found.get("factor")
        if found.has("original_max_position_embeddings"):
            context = found.whole("original_max_position_embeddings")
    elif kind != "default":
        name = "rope_type" if found.has("rope_type") else "type"
        why = f"{found.said(name)}: default, linear, dynamic and llama3 are supported"
        return Rope(base, unsupported=why)
    else:
        found.get("factor")  # which the default has no use for
    found.get("rope_theta")
    return Rope(base, scale, factors, context, refusal(found))


def _llama3(found: Fields, base: float, rotary_dim: int) -> tuple[float, ...]:
    """Llama 3.1's: long waves are slowed by `factor`, short ones not, between them by a part."""
    factor, context = _above_0(found, "factor"), found.whole("original_max_position_embeddings")
    low, high = _above_0(found, "low_freq_factor"), _above_0(found, "high_freq_factor")
    if low >= high:
        raise ModelFormatError(
            f"{found.said('low_freq_factor')}: expected less than high_freq_factor, {high:g}"
        )
    factors = []
    for pair in range(rotary_dim // 2):
        waves = context * base ** (-2 * pair / rotary_dim) / (2 * math.pi)  # in the context
        part = min(max((waves - low) / (high - low), 0), 1)
        factors.append(1 / (part + (1 - part) / factor))
    return tuple(factors)


def _above_0(found: Fields, name: str) -> float:
    value = found.real(name)
    if not 0 < value < math.inf:
        raise found.wrong(name, "a number above 0")
    return value
