"""Attention over latent rows: of a token the pages keep one narrow row, from which every head's K
and V follow by a matrix of its own   (DeepSeek-V2, 2024).

Its sizes, checked once, when made. Knows no file: who reads one names the field of what is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from octavo.errors import ModelFormatError
from octavo.kernels import native

_STEP = 16  # kernels run heads of whole vectors, and matrices of whole panels
_MOST = 2**16


@dataclass(frozen=True, slots=True)
class Latent:
    """Sizes under the names of DeepSeek's config."""

    kv_lora_rank: int  # values of a token's row without RoPE
    qk_rope_head_dim: int  # of its part with RoPE, and of a head's q that meets it
    qk_nope_head_dim: int  # of a head's q that meets the row, by the head's matrix
    v_head_dim: int  # of what a head adds
    q_lora_rank: int = 0  # values that q is made of; 0: of the layer's whole row

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            value, least = getattr(self, name), 0 if name == "q_lora_rank" else 1
            if not least <= value <= _MOST:
                raise ModelFormatError(f"latent {name} is {value}: expected {least} to {_MOST}")

    @property
    def stored(self) -> int:
        """Values of a token's K."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def head_dim(self) -> int:
        """Values of a head's q, by which scores are scaled."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def unsupported(self) -> str:
        """Say why no kernel runs these sizes; "" if they are run."""
        if self.stored > native.MAX_HEAD_DIM:
            return f"a latent row of {self.stored} values: at most {native.MAX_HEAD_DIM} are run"
        for value in (self.kv_lora_rank, self.qk_rope_head_dim, self.v_head_dim):
            if value % _STEP:
                return f"a part of {value} values of latent attention: multiples of {_STEP} are run"
        return ""


def grown_scale(head_dim: int, factor: float, mscale: float) -> float:
    """Return what scores are multiplied by where positions were stretched by a factor (YaRN's
    mscale)."""
    grown = 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0
    return grown * grown / math.sqrt(head_dim)
