"""What a config.json says in its own way in GPT-2, StarCoder and Falcon.

Heads that share K and V, blocks whose attention and MLP read the same rows, ALiBi.
"""

from __future__ import annotations

from octavo.weights.hf.family import Family
from octavo.weights.hf.json_fields import Fields

_NEW, _PARALLEL, _NORMS = "new_decoder_architecture", "parallel_attn", "num_ln_in_parallel_attn"


def shared_heads(fields: Fields, family: Family, heads: int) -> int:
    """How many KV heads there are."""
    name = family.their_field("num_key_value_heads")
    if family.has_multi_query and not _is_new(fields, family):
        fields.read.add(name)  # whatever it says
        return 1 if fields.flag("multi_query") else heads
    found = fields.whole(name, heads, least=1)
    if heads % found:
        all_heads = family.their_field("num_attention_heads")
        raise fields.wrong(name, f"a divisor of the {heads} {all_heads}")
    return found


def parallel_norms(fields: Fields, family: Family) -> int:
    """Return by how many norms attention and MLP read the same rows; 0 if one follows the other."""
    if family.architecture != "falcon":
        return 0
    is_new = _is_new(fields, family)
    most = 2 if is_new else 1
    norms = fields.whole(_NORMS, most)
    if not 1 <= norms <= most:
        raise fields.wrong(_NORMS, "1 or 2" if is_new else f"1, as {_NEW} is not true")
    return norms if fields.flag(_PARALLEL, default=True) or is_new else 0


def _is_new(fields: Fields, family: Family) -> bool:
    """Falcon-40B and later: its other flags do not count."""
    if family.architecture != "falcon":
        return False
    fields.read.add("multi_query")
    groups = family.has_groups_if_said and fields.has(family.their_field("num_key_value_heads"))
    return fields.flag(_NEW, default=groups)
