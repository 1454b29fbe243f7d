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


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Radians per position of each rotated pair; cos and sin are multiplied by the amplitude."""

    frequencies: tuple[float, ...]  # (rotary_dim / 2,)
    amplitude: float = 1.0
