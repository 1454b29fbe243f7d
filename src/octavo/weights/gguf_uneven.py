"""Gemma 4's keys: its windowed layers' sizes, and which layers store no K and V.

The converter writes a number for all layers, or one for each where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.model.uneven import Uneven
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.gguf_metadata import Metadata

ARCHITECTURE = "gemma4"
NO_TURN = 1e30  # a factor that stands for no rotation


def uneven(
    keys: Metadata, tensors: Mapping[str, TensorInfo], windowed: Sequence[bool], layers: int
) -> dict[str, Any]:
    """Fields of `ModelConfig`: those of full layers, and what else there is."""
    arch = ARCHITECTURE
    is_windowed = [*(windowed or (False,) * layers)]
    sharing = keys.whole(f"{arch}.attention.shared_kv_layers", default=0)
    sizes = keys.wholes(f"{arch}.feed_forward_length", layers)
    ffn, factor = sizes[0], max(1, sizes[-1] // max(sizes[0], 1))
    expected = [ffn * (factor if i >= layers - sharing else 1) for i in range(layers)]
    if sizes != expected:
        keys.refuse(f"{arch}.feed_forward_length: other sizes than in layers that store K and V, "
                    "and in those that do not")  # fmt: skip
    kv_heads = keys.wholes(f"{arch}.attention.head_count_kv", layers)
    of_kind = dict(zip(is_windowed, kv_heads, strict=True))
    if kv_heads != [of_kind[kind] for kind in is_windowed]:
        keys.refuse(f"{arch}.attention.head_count_kv: other numbers than of full and of windowed "
                    "layers")  # fmt: skip
    head_dim = keys.whole(f"{arch}.attention.key_length")
    dim = keys.whole(f"{arch}.attention.key_length_swa", default=head_dim)
    for name in ("attention.value_length_swa", "rope.dimension_count_swa"):
        if keys.whole(f"{arch}.{name}", default=dim) != dim:
            keys.refuse(f"{arch}.{name}: only attention.key_length_swa, {dim}, is supported")
    full = next((i for i, kind in enumerate(is_windowed) if not kind), 0)
    return {
        "ffn_size": ffn,
        "kv_heads": of_kind.get(False, kv_heads[0]),
        "uneven": Uneven(
            windowed_head_dim=dim,
            windowed_kv_heads=of_kind.get(True, kv_heads[0]),
            sharing=sharing,
            ffn_factor_of_sharing=factor,
            layer_embedding=keys.whole(f"{arch}.embedding_length_per_layer_input", default=0),
            values_are_keys=f"blk.{full}.attn_v.weight" not in tensors,
        ),
    }
