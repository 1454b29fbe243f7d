"""What ops are over: values, weights by name, pages and rope tables. Data only.

Knows no op; `ops` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WeightKind = Literal["matrix", "vector", "table"]
WeightSource = Literal["memory", "file"]


@dataclass(frozen=True, slots=True)
class Value:
    """Rows of `width` float32, or the packed activations that a matmul reads."""

    id: int
    width: int
    packed: bool = False


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """A weight that the program expects: `shape` is (rows, cols) of a matrix, (n,) of a vector.

    What is read from the `file` is a table: rows that are gathered where the file is mapped, as
    tokens ask for them, and that are never packed."""

    name: str
    shape: tuple[int, ...]
    source: WeightSource = "memory"

    @property
    def kind(self) -> WeightKind:
        if self.source == "file":
            return "table"
        return "matrix" if len(self.shape) == 2 else "vector"


@dataclass(frozen=True, slots=True)
class KVSpec:
    """What one layer of a layer group stores for a token. Layers of a group share block tables."""

    kv_heads: int
    k_dim: int
    v_dim: int
    window: int = 0  # tokens a row sees, itself included; 0 = all
    beginning: int = 0  # tokens that it sees beside a window, the first ones
    slides: bool = False  # the window is no layer's own: it is how a context slides
    v_in_k: bool = False  # V is the first v_dim values of K; pages may keep them once

    @property
    def most_seen(self) -> int:
        """Return how many tokens a row sees at most; 0 = all."""
        return self.window + self.beginning

    @property
    def is_full(self) -> bool:
        """Whether rows see all tokens, or all of a context that slides."""
        return not self.window or self.slides


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Radians per position of each rotated pair; cos and sin are multiplied by the amplitude."""

    frequencies: tuple[float, ...]  # (rotary_dim / 2,)
    amplitude: float = 1.0
    last: int | None = None  # positions beyond it are turned as it is
