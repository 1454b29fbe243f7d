"""Random GGUF blocks for tests of packers and kernels: any quants, scales that stay finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from octavo.weights.ggml_type import GGMLType

OWN_FORMAT = {
    GGMLType.Q4_0: "W4S", GGMLType.Q4_1: "W4A", GGMLType.Q5_0: "W5S", GGMLType.Q5_1: "W5A",
    GGMLType.Q8_0: "W8", GGMLType.Q4_K: "W4K", GGMLType.Q5_K: "W5K", GGMLType.Q6_K: "W6K",
    GGMLType.Q2_K: "W2K", GGMLType.Q3_K: "W3K", GGMLType.IQ4_NL: "W4T", GGMLType.IQ4_XS: "W4TK",
    GGMLType.MXFP4: "W4F",
}  # fmt: skip
TYPE_OF = {fmt: type for type, fmt in OWN_FORMAT.items()}
# Where a block keeps its fp16 scale and min; elsewhere one scale at 0. MXFP4 has a power of two.
HALFS_AT = {
    GGMLType.MXFP4: (), GGMLType.Q6_K: (208,), GGMLType.Q2_K: (80, 82), GGMLType.Q3_K: (108,),
    **dict.fromkeys((GGMLType.Q4_1, GGMLType.Q5_1, GGMLType.Q4_K, GGMLType.Q5_K), (0, 2)),
}  # fmt: skip


def random_blocks(
    type: GGMLType, rows: int, cols: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The (rows, cols) tensor's bytes, 1-d."""
    if type in (GGMLType.F32, GGMLType.F16, GGMLType.BF16):
        dtype = np.float16 if type == GGMLType.F16 else np.float32
        values = rng.standard_normal((rows, cols)).astype(dtype).view(np.uint8).reshape(-1)
        return values.reshape(-1, 4)[:, 2:].reshape(-1) if type == GGMLType.BF16 else values
    count = rows * cols // type.block_values
    blocks = rng.integers(0, 256, (count, type.block_bytes), dtype=np.uint8)
    for at in HALFS_AT.get(type, (0,)):
        halfs = rng.uniform(-0.1, 0.1, (count, 1)).astype(np.float16)
        blocks[:, at : at + 2] = halfs.view(np.uint8)
    if type is GGMLType.MXFP4:
        blocks[:, 0] = rng.integers(118, 125, count)
    return blocks.reshape(-1)


def values_of(blocks: NDArray[np.uint8], type: GGMLType, value: int) -> NDArray[np.uint8]:
    """The same blocks with every quant byte and high bit set to `value` (0 or 255)."""
    out = blocks.reshape(-1, type.block_bytes).copy()
    first, last = {
        "Q4_1": (4, 20), "Q5_1": (4, 24), "Q4_K": (16, 144), "Q5_K": (16, 176), "Q6_K": (0, 192),
        "Q2_K": (16, 80), "Q3_K": (0, 96), "IQ4_XS": (8, 136), "MXFP4": (1, 17),
    }.get(type.name, (2, type.block_bytes))  # fmt: skip
    out[:, first:last] = value
    return out.reshape(-1)
