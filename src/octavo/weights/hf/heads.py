"""How many heads a config.json says there are, and how wide each is: in every family's own way.

Knows fields. Knows nothing of positions, nor of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.model.latent import Latent
from octavo.weights.hf.family import Family
from octavo.weights.hf.gpt_config import shared_heads
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.latent import latent
from octavo.weights.hf.uneven import full_sizes

_MOST_HEAD_DIM = 1 << 16


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of attention in full layers; in windowed ones `of_windowed`: head_dim, KV heads."""

    heads: int
    kv_heads: int
    head_dim: int
    of_windowed: tuple[int, int]
    latent: Latent | None = None
    unsupported: str = ""


def heads_of(fields: Fields, family: Family, hidden: int, heads: int) -> Heads:
    """Read the sizes of attention. Raises ModelFormatError."""
    kv_heads = shared_heads(fields, family, heads)
    if family.is_latent:
        rows, why_not = latent(fields, heads)
        return Heads(heads, 1, rows.head_dim, (rows.head_dim, 1), rows, why_not)
    if not fields.has("head_dim") and "head_dim" not in family.assumed and hidden % heads:
        whole = family.their_field("hidden_size")
        raise fields.wrong(
            family.their_field("num_attention_heads"), f"a divisor of {whole}, {hidden}"
        )
    head_dim = fields.whole(family.their_field("head_dim"), hidden // heads, least=1)
    if head_dim % 2 or head_dim > _MOST_HEAD_DIM:  # before a table is made of so many
        raise fields.wrong("head_dim", f"an even number, at most {_MOST_HEAD_DIM}")
    of_windowed = head_dim, kv_heads
    if family.is_uneven:
        head_dim, kv_heads = full_sizes(fields, *of_windowed)
    return Heads(heads, kv_heads, head_dim, of_windowed)
