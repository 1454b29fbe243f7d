"""Where K and V of a token lie in pages, and by which twins: the page writers in numpy.

Knows layouts and formats; knows nothing of rows that attend.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from octavo.kernels import native
from tests.kernels.exact import Floats
from tests.kernels.kv_floats import UNIT, Bytes, F32Twin, Offsets
from tests.kernels.kv_twin import KV_TWINS, TILED_BF16

Ints = NDArray[np.int32]
Twins = tuple[F32Twin, F32Twin]


def twins(layout: native.KVLayout, isa: str = "avx512") -> Twins:
    """Return the twins of K's format and of V's. At levels with tiles bf16 goes through them where
    both are."""
    if isa.startswith("amx") and layout.k_format == layout.v_format == "bf16":
        return TILED_BF16, TILED_BF16
    return KV_TWINS[layout.k_format], KV_TWINS[layout.v_format]


def arithmetic(layout: native.KVLayout, isa: str) -> str:
    """Return the first level that computes over such pages as this one: what a level is to a twin
    is whether it fuses products into sums, and whether bf16 goes through tiles."""
    if isa == "base":
        return isa
    return "amx" if TILED_BF16 in twins(layout, isa) else "avx2"


@cache
def unit_bytes(k_format: str, v_format: str, k_dim: int, v_dim: int) -> tuple[Offsets, Offsets]:
    """Where in a unit the bytes of each slot's K and V are, (UNIT, bytes)."""
    k, v = KV_TWINS[k_format], KV_TWINS[v_format]
    return (
        np.stack([k.k_bytes(slot, k_dim) for slot in range(UNIT)]),
        np.stack([v.v_bytes(slot, v_dim) for slot in range(UNIT)]),
    )


def row_bytes(
    layout: native.KVLayout, block: ArrayLike, layer: int, head: int, slot: ArrayLike
) -> tuple[Offsets, Offsets]:
    """Where the bytes of K and V of tokens (..) are in pages [block][layer][K|V][kv_head][unit],
    (.., bytes); or [block][layer][kv_head][unit], and V's are the first of K's."""
    units = layout.block_size // UNIT
    of_k, of_v = unit_bytes(layout.k_format, layout.v_format, layout.k_dim, layout.v_dim)
    k_unit, v_unit = UNIT * of_k.shape[1], UNIT * of_v.shape[1]
    if layout.v_aliases_k:
        v_unit = 0
    layer_bytes = layout.kv_heads * units * (k_unit + v_unit)
    block_bytes = -(-layout.layers * layer_bytes // 4096) * 4096
    k_begin = np.asarray(block, np.int64)[..., None] * block_bytes + layer * layer_bytes
    v_begin = k_begin + layout.kv_heads * units * k_unit
    unit, slot = np.divmod(slot, UNIT)
    unit = head * units + unit[..., None]
    k_at = k_begin + unit * k_unit + of_k[slot]
    if layout.v_aliases_k:
        return k_at, k_at[..., : of_v.shape[1]]
    return k_at, v_begin + unit * v_unit + of_v[slot]


def write_kv(
    pages: Bytes, layout: native.KVLayout, block_table: Ints, positions: Ints, layer: int,
    k: Floats, v: Floats,
) -> None:  # fmt: skip
    k_twin, v_twin = twins(layout)
    for i, position in enumerate(positions):
        block, slot = divmod(int(position), layout.block_size)
        for head in range(layout.kv_heads):
            k_at, v_at = row_bytes(layout, int(block_table[block]), layer, head, slot)
            pages[k_at] = k_twin.encode(k_twin.turned(k[i, head]))
            pages[v_at] = v_twin.encode(v[i, head])
