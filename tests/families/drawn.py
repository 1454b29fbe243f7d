"""Weights that are not stored but drawn, by the names that checkpoints have for them.

What writes the goldens and what checks them draw the same ones. All are values that bf16 holds;
weights of norms are away from what they would do nothing at, biases from 0. Knows no torch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from octavo.batch import FloatArray

TOKENS = [int(t) for t in np.random.default_rng(24).integers(0, 131, 90)]  # of 131
PROMPTS = [TOKENS, TOKENS[60:]]
ROWS = range(0, len(TOKENS), 9)
ANSWER = 64  # tokens that are greedily added to each prompt

# Four times as large, so that in some seed no row is between two experts.
_ROUTERS = (
    "block_sparse_moe.gate.weight", "mlp.gate.weight", "router.layer.weight", "mlp.router.weight",
)  # fmt: skip
_ADDED_TO_1 = ("gemma", "gemma2", "gemma3", "gemma3_text")  # what weights of norms are


def checkpoint(
    shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], seed: int
) -> dict[str, FloatArray]:
    """Every tensor, float32; `config` is the model's config.json."""
    around = 0.0 if config["model_type"] in _ADDED_TO_1 else 1.0
    return {name: _drawn(name, tuple(shape), around, seed) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...], around: float, seed: int) -> FloatArray:
    rng = np.random.Generator(np.random.Philox([zlib.crc32(name.encode()), seed]))
    drawn = rng.standard_normal(shape, np.float32)
    if len(shape) > 1:
        values = drawn / np.float32(shape[-1] ** 0.5)
        if name.endswith(_ROUTERS):
            values *= np.float32(4)
    else:
        scales = name.endswith(("weight", "layer_scalar"))
        values = drawn / 4 + np.float32(around if scales else 0)
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
