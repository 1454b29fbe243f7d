"""The LayerNorm with a weight and a bias that families with LayerNorms share (Ba et al. 2016).

Knows how files name its two vectors; model files say where it stands.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import Value, WeightSpec


def layer_norm(p: ProgramBuilder, cfg: ModelConfig, name: str, x: Value) -> Value:
    """Norm rows by the vectors `name`.weight and `name`.bias."""
    weight, bias = (WeightSpec(f"{name}.{kind}", (x.width,)) for kind in ("weight", "bias"))
    return p.layer_norm(x, weight, bias, cfg.norm_eps)
