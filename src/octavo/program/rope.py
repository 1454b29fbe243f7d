"""Rotary position embeddings: the cosines and sines that a rope table makes."""

from __future__ import annotations

import numpy as np

from octavo.batch import FloatArray
from octavo.program.ops import RopeTable


def cos_sin(table: RopeTable, positions: int) -> tuple[FloatArray, FloatArray]:
    """cos and sin, each (positions, rotary_dim / 2) float32, computed in float64."""
    angles = np.arange(positions, dtype=np.float64)[:, None] * np.asarray(table.frequencies)
    cos, sin = table.amplitude * np.cos(angles), table.amplitude * np.sin(angles)
    return cos.astype(np.float32), sin.astype(np.float32)
