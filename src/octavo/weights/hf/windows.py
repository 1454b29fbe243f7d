"""Which layers of a config.json see a window only, and which have no rotary embedding.

`layer_types` says the first, where it is there; files without it mean what their family does.
"""

from __future__ import annotations

from typing import Literal

from octavo.model.config import all_but_every
from octavo.weights.hf.json_fields import Fields

FULL, WINDOWED = "full_attention", "sliding_attention"
_ALSO_FULL = "attention"  # as it was called once
_PATTERN, _SAVED_PATTERN = "sliding_window_pattern", "_sliding_window_pattern"

# Of files without layer_types: those from max_window_layers on; all but every nth, by a field or
# by none; those without a rotary embedding. In models of two kinds no file lists them: there is no
# window, or all layers have it.
Rule = Literal[
    "none", "all", "all if used", "later", "all but every nth", "all but every nth, unsaid",
    "without_rope",
]  # fmt: skip
Layers = tuple[bool, ...]  # by layer; (): none


def windows(
    fields: Fields, rule: Rule, layers: int, without_rope: Layers, context: int
) -> tuple[int, Layers]:
    """The window, and which layers have it."""
    fields.read.update(("sliding_window", "max_window_layers", _PATTERN, _SAVED_PATTERN))
    window, is_used = 0, fields.flag("use_sliding_window", default=True)
    if is_used or rule == "all":
        is_null = "sliding_window" in fields.values and not fields.get("sliding_window")
        window = 0 if is_null else fields.whole("sliding_window", 0, least=0)
    hides = 0 < window < context
    if hides and not is_used:
        raise fields.wrong(
            "use_sliding_window", "true, or null in sliding_window, which alone counts here"
        )
    if rule == "none" and hides:
        raise fields.wrong("sliding_window", "null, as models of this class have no window")
    if fields.has("layer_types"):
        windowed = _listed(fields, layers)
        if windowed and not window:
            raise fields.wrong("layer_types", f"{FULL} everywhere, as no window is used")
        if rule in ("all", "all if used") and hides and not all(windowed or (False,)):
            raise fields.wrong(
                "layer_types", f"{WINDOWED} everywhere, as transformers has it in this class"
            )
    elif not window:
        windowed = ()
    else:
        windowed = _unlisted(fields, rule, layers, without_rope)
    return (window, windowed) if windowed else (0, ())


def without_rope(fields: Fields, layers: int) -> Layers:
    """Which layers have no rotary embedding: 1 means one that has it."""
    if fields.has("no_rope_layers"):
        fields.read.add("no_rope_layer_interval")
        found = fields.get("no_rope_layers")
        is_list = isinstance(found, list) and len(found) == layers
        if not is_list or not all(each in (0, 1) for each in found):
            raise fields.wrong("no_rope_layers", f"0 or 1 for each of {layers} layers")
        return _if_any(tuple(not each for each in found))
    every = fields.whole("no_rope_layer_interval", least=1)
    return _if_any(tuple(not each for each in all_but_every(every, layers)))


def _listed(fields: Fields, layers: int) -> Layers:
    found = fields.texts("layer_types")
    if len(found) != layers or not {*found} <= {FULL, _ALSO_FULL, WINDOWED}:
        raise fields.wrong("layer_types", f"{FULL} or {WINDOWED} for each of {layers} layers")
    return _if_any(tuple(each == WINDOWED for each in found))


def _unlisted(fields: Fields, rule: Rule, layers: int, without_rope: Layers) -> Layers:
    match rule:
        case "none":
            return ()
        case "all" | "all if used":
            return (True,) * layers
        case "later":
            first = fields.whole("max_window_layers", least=0)
            return _if_any(tuple(layer >= first for layer in range(layers)))
        case "all but every nth" | "all but every nth, unsaid":
            nth = fields.whole(_PATTERN, least=1)
            if rule == "all but every nth, unsaid" and nth != fields.default(_PATTERN):
                usual = fields.default(_PATTERN)
                raise fields.wrong(_PATTERN, f"{usual}, or layer_types, in this class")
            if fields.whole(_SAVED_PATTERN, nth) != nth:
                raise fields.wrong(_SAVED_PATTERN, f"{nth} where there are no layer_types")
            return _if_any(all_but_every(nth, layers))
        case "without_rope":
            return without_rope


def _if_any(layers: Layers) -> Layers:
    return layers if any(layers) else ()
