"""What the model of a GGUF file multiplies and caps, as llama.cpp understands its keys.

Knows keys, and which scale of scores files of Gemma mean, which have no key for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from octavo.weights.gguf_metadata import Metadata

ATTENTION_CAP, LOGIT_CAP = "attn_logit_softcapping", "final_logit_softcapping"

# Layers of Gemma's 27B, the one size whose scale is that of hidden size / heads, not of its heads.
_LAYERS_OF_27B: Mapping[str, int] = MappingProxyType({"gemma2": 46, "gemma3": 62})


def scales(
    keys: Metadata,
    arch: str,
    assumed: Mapping[str, int],
    *,
    layers: int,
    hidden: int,
    heads: int,
    head_dim: int,
) -> dict[str, Any]:
    """Fields of `ModelConfig`, and what was assumed; of a scale or cap that is 0 there is none."""
    found: dict[str, Any] = {"assumed": ()}
    if arch in ("granite", "granitemoe"):
        for name in ("embedding_scale", "residual_scale"):
            found[name] = keys.real(f"{arch}.{name}", default=0.0) or 1.0
        found["attention_scale"] = keys.real(f"{arch}.attention.scale", default=0.0) or None
        found["logit_scale"] = 1 / (keys.real(f"{arch}.logit_scale", default=0.0) or 1.0)
    if arch == "gemma2":
        for name, key in (("attention_softcap", ATTENTION_CAP), ("logit_softcap", LOGIT_CAP)):
            found[name] = keys.real(f"{arch}.{key}", default=float(assumed[key]))
    if arch == "gemma4":
        found["attention_scale"] = 1.0
        found["logit_softcap"] = keys.real(f"{arch}.{LOGIT_CAP}", default=0.0)
    if arch in _LAYERS_OF_27B:
        size = max(hidden, 1) / max(heads, 1) if layers == _LAYERS_OF_27B[arch] else head_dim
        if size != head_dim:
            found["attention_scale"] = size**-0.5
        if not keys.has(f"{arch}.attention.scale"):
            found["assumed"] = (f"attention.scale {max(size, 1) ** -0.5:g}",)
    if arch == "mistral3":
        found["position_beta"] = keys.real(f"{arch}.attention.temperature_scale", default=0.0)
        original = keys.whole(f"{arch}.rope.scaling.original_context_length", default=0)
        found["position_original"] = original or keys.whole(f"{arch}.context_length")
    return found
