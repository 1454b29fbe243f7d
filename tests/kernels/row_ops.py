"""The row-wise ops of the core as functions of their own arguments, results in place."""

from __future__ import annotations

import numpy as np

from octavo.kernels import native


def rms_norm(
    isa: str, out: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float, heads: int = 1
) -> None:
    native.row_op(isa, "RmsNorm", out, x, weight=weight, eps=eps, heads=heads)


def rope(isa: str, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, style: int) -> None:
    """x: (heads, dim), in place."""
    flat = x.reshape(-1)
    native.row_op(isa, "Rope", flat, flat, cos=cos, sin=sin, heads=len(x), rope_style=style)


def silu_mul(isa: str, out: np.ndarray, gate: np.ndarray, up: np.ndarray) -> None:
    native.row_op(isa, "SwiGLU", out, gate, y=up)


def scale(isa: str, out: np.ndarray, x: np.ndarray, factor: float) -> None:
    native.row_op(isa, "Scale", out, x, scale=factor)
