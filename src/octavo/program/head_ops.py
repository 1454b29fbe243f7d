"""Ops over the heads of rows, where each head is a part of its own. Data only; `ops` names them
with the others."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.program.values import Value, WeightSpec


@dataclass(frozen=True, slots=True)
class HeadLinear:
    """Head h of out = (head h of x) @ W_h.T, each with a matrix of its own: the weight has the rows
    of all, one head after the other, whole panels of 16 of each   (DeepSeek-V2, 2024)."""

    x: Value
    weight: WeightSpec  # (heads * out, in)
    heads: int
    out: Value


@dataclass(frozen=True, slots=True)
class Join:
    """Each head of out is that of x, then that of y"""

    x: Value
    y: Value
    heads: int
    out: Value


HeadOp = HeadLinear | Join
