"""What a GGUF file says of its experts, as llama.cpp understands its keys.

Knows keys, and how each architecture weighs a row's experts, for which no key of these counts: the
others must then say nothing else. Which layers have experts the tensors tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from octavo.model.mixture import EXPERT_STEP, MOST_EXPERTS, ROUTER, Mixture
from octavo.weights.gguf_metadata import Metadata

_OVER_CHOSEN: Mapping[str, Any] = MappingProxyType({"score": "softmax_of_chosen"})

# Architectures whose models have experts, or may have: how their factors are made.
_RULES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": _OVER_CHOSEN,  # Mixtral
        "granitemoe": _OVER_CHOSEN,
        "qwen3moe": MappingProxyType({"renormalised": True}),
        "olmoe": MappingProxyType({}),
        "deepseek2": MappingProxyType({}),
        "gpt-oss": MappingProxyType({**_OVER_CHOSEN, "activation": "clamped_glu", "biased": True}),
    }
)
_WITH_AND_WITHOUT = ("llama",)
_SHARED = "expert_shared_feed_forward_length"


def mixture(
    keys: Metadata, arch: str, tensors: Collection[str], *, layers: int, hidden: int
) -> Mixture | None:
    """None for a model without experts; who reads the other keys refuses those of an architecture
    that is run without them only."""
    count = f"{arch}.expert_count"
    if arch not in _RULES or (arch in _WITH_AND_WITHOUT and not keys.whole(count, default=0)):
        return None
    experts = keys.whole(count)
    if not 1 <= experts <= MOST_EXPERTS:
        raise keys.wrong(count, f"a whole number from 1 to {MOST_EXPERTS}")
    used = keys.whole(f"{arch}.expert_used_count")
    if not 1 <= used <= experts:
        raise keys.wrong(f"{arch}.expert_used_count", f"1 to {experts}, the experts there are")
    size = f"{arch}.expert_feed_forward_length"
    if not keys.has(size):
        size = f"{arch}.feed_forward_length"
    sizes = {size: keys.whole(size), f"{arch}.embedding_length": hidden}
    for key, value in sizes.items():
        if value < 1 or value % EXPERT_STEP:
            keys.refuse(
                f"metadata {key!r} is {value}: experts are run whose sizes are multiples of "
                f"{EXPERT_STEP}"
            )
    shared = keys.whole(f"{arch}.{_SHARED}", default=0) if arch == "granitemoe" else 0
    more = dict(_RULES[arch])
    if arch == "deepseek2":
        shared = keys.whole(f"{arch}.expert_shared_count", default=0) * sizes[size]
        keys.whole(f"{arch}.leading_dense_block_count", default=0)  # as the tensors say
        more["scale"] = keys.real(f"{arch}.expert_weights_scale", default=0.0) or 1.0
        for ours, name in (("groups", "count"), ("groups_used", "used_count")):
            more[ours] = keys.whole(f"{arch}.expert_group_{name}", default=0) or 1
    return Mixture(
        experts, used, sizes[size], _sparse(tensors, layers), shared_ffn_size=shared, **more
    )


def _sparse(tensors: Collection[str], layers: int) -> tuple[bool, ...]:
    """By layer: all but those that have the gate of one MLP, and no router."""
    return tuple(
        f"blk.{i}.ffn_gate.weight" not in tensors or f"blk.{i}.{ROUTER}.weight" in tensors
        for i in range(layers)
    )
