"""What a config.json says of latent attention: the sizes of its parts, and what scores are scaled
by."""

from __future__ import annotations

from octavo.model.latent import Latent, grown_scale
from octavo.weights.hf.json_fields import Fields


def latent(fields: Fields, heads: int) -> tuple[Latent, str]:
    """Return the sizes, and why they are not run."""
    q_rank = "q_lora_rank"
    if q_rank not in fields.values:  # transformers would have 1,536
        raise fields.wrong(q_rank, "a whole number, or null")
    fields.read.add("num_key_value_heads")
    if fields.whole("num_key_value_heads", heads) != heads:
        raise fields.wrong("num_key_value_heads", f"as many as num_attention_heads, {heads}")
    sizes = Latent(
        kv_lora_rank=fields.whole("kv_lora_rank", least=1),
        qk_rope_head_dim=fields.whole("qk_rope_head_dim", least=1),
        qk_nope_head_dim=fields.whole("qk_nope_head_dim", least=1),
        v_head_dim=fields.whole("v_head_dim", least=1),
        q_lora_rank=fields.whole(q_rank, least=1) if fields.get(q_rank) is not None else 0,
    )
    if sizes.qk_nope_head_dim % 2:
        raise fields.wrong("qk_nope_head_dim", "an even number")
    return sizes, f"{fields.where}: {sizes.unsupported}" if sizes.unsupported else ""


def score_scale(rope: Fields | None, head_dim: int) -> float | None:
    """Return the scale of scores if it is not the usual one, from the embedding's parameters."""
    name = "mscale_all_dim"
    kind = "default" if rope is None else rope.text("rope_type", rope.text("type", "default"))
    if rope is None or kind == "default" or not rope.has(name) or rope.real(name) == 0:
        return None
    return grown_scale(head_dim, rope.real("factor"), rope.real(name))
