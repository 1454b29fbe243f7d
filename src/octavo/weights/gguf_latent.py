"""What a GGUF file says of latent attention, as llama.cpp understands its keys.

Files are of two kinds: newer ones tell of heads as pages have them (one KV head, `key_length` of a
latent row) and of the model's own under keys that end in `_mla`; older ones of the model's alone.
"""

from __future__ import annotations

from octavo.model.latent import Latent, grown_scale
from octavo.weights.gguf_metadata import Metadata

ARCHITECTURES = frozenset({"deepseek2"})


def latent(keys: Metadata, arch: str, heads: int) -> Latent | None:
    if arch not in ARCHITECTURES:
        return None
    rope_dim = keys.whole(f"{arch}.rope.dimension_count")
    rank = keys.whole(f"{arch}.attention.kv_lora_rank")
    lengths = []
    for name, stored in (("key_length", rank + rope_dim), ("value_length", rank)):
        key, own = f"{arch}.attention.{name}", f"{arch}.attention.{name}_mla"
        length = keys.whole(key)
        if keys.has(own):
            if length != stored:
                raise keys.wrong(key, f"{stored}, as other keys say")
            key, length = own, keys.whole(own)
        least = rope_dim if name == "key_length" else 0
        if length <= least:
            raise keys.wrong(key, f"more than {least}")
        lengths.append(length)
    kv_heads = f"{arch}.attention.head_count_kv"
    if keys.whole(kv_heads, default=heads) not in (1, heads):
        raise keys.wrong(kv_heads, f"1 or {heads}")
    sizes = Latent(
        rank, rope_dim, qk_nope_head_dim=lengths[0] - rope_dim, v_head_dim=lengths[1],
        q_lora_rank=keys.whole(f"{arch}.attention.q_lora_rank", default=0),
    )  # fmt: skip
    if sizes.unsupported:
        keys.refuse(sizes.unsupported)
    return sizes


def score_scale(keys: Metadata, arch: str, head_dim: int) -> float | None:
    """Return the scale of scores if it is not the usual one: converters write a tenth of what
    transformers calls mscale_all_dim."""
    prefix = f"{arch}.rope.scaling."
    tenth = keys.real(f"{prefix}yarn_log_multiplier", default=0.0)
    if keys.text(f"{prefix}type", default="") != "yarn" or not tenth:
        return None
    return grown_scale(head_dim, keys.real(f"{prefix}factor"), 10 * tenth)
