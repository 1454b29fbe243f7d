"""Rotary position embeddings: the cosines and sines that a rope table's frequencies make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.batch import FloatArray


def cos_sin(frequencies: Sequence[float], positions: int) -> tuple[FloatArray, FloatArray]:
    """cos and sin, each (positions, rotary_dim / 2) float32, computed in float64."""
    angles = np.arange(positions, dtype=np.float64)[:, None] * np.asarray(frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
