"""Another number of KV heads: K and V of fewer are the mean of each group's, of more are copies.

The mean is where the paper on grouped-query attention starts its further training (Ainslie et al.
2023, section 2.1); copies compute what the one head did. Comes in: weights as float32. Knows no
file.
"""

from __future__ import annotations

import numpy as np

from octavo.batch import FloatArray
from octavo.errors import UsageError
from octavo.model.config import ModelConfig


def check_kv_heads(config: ModelConfig, kv_heads: int) -> None:
    """Raise UsageError, with the numbers that can be had, unless this is one of them."""
    possible = possible_kv_heads(config)
    if kv_heads not in possible:
        *most, last = map(str, possible)
        raise UsageError(
            f"--kv-heads {kv_heads}: {config.heads} heads with {config.kv_heads} KV heads can "
            f"have {', '.join(most)}{' or ' if most else ''}{last}"
        )


def possible_kv_heads(config: ModelConfig) -> list[int]:
    """Return the numbers of KV heads that divide the heads, and divide today's or are divided."""
    return [
        n
        for n in range(1, config.heads + 1)
        if config.heads % n == 0 and (config.kv_heads % n == 0 or n % config.kv_heads == 0)
    ]


def with_kv_heads(values: FloatArray, before: int, after: int) -> FloatArray:
    """Return K's or V's weight (before * head_dim, columns), or a bias or norm of as many rows, for
    `after` KV heads."""
    if after > before:
        heads = values.reshape(before, -1, *values.shape[1:])
        wider = np.repeat(heads, after // before, axis=0)
        return wider.reshape(-1, *values.shape[1:])
    groups = values.reshape(after, before // after, -1, *values.shape[1:])
    mean: FloatArray = groups.mean(axis=1, dtype=np.float32)
    return mean.reshape(-1, *values.shape[1:])
