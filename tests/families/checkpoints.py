"""Tiny models whose weights are drawn by the program's names and packed by hand.

What is loaded of a directory is held against them.

Odd on purpose: heads that are no part of the hidden size, a vocabulary of 131, norms away from 1,
windows shorter than the prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from octavo.batch import FloatArray
from octavo.kernels import native
from octavo.model.config import ModelConfig, all_but_every
from octavo.model.registry import build_program
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_weights import ModelWeights
from tests.tiny import TinyModel

_GEMMA3 = ModelConfig(
    architecture="gemma3",
    num_layers=7,
    hidden_size=96,
    ffn_size=160,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=131,
    context=512,
    norm_eps=1e-6,
    rope_base=1e6,
    rotary_dim=32,
    rope_style="half",
    tied_head=False,  # a tied one would repeat the last token
    qkv_bias=False,
    window=24,
    windowed=all_but_every(3, 7),
    local_rope_base=1e4,
)
CONFIGS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "gemma3": _GEMMA3,
        "gemma3, one KV head, positions scaled": replace(_GEMMA3, kv_heads=1, rope_scale=8.0),
        "gemma3, no window, head tied": replace(_GEMMA3, window=0, windowed=(), tied_head=True),
    }
)


def weights(config: ModelConfig) -> dict[str, FloatArray]:
    """Every weight of a model, float32 values that bf16 holds."""
    return {
        name: _drawn(name, spec.shape) for name, spec in build_program(config).weights().items()
    }


def model(config: ModelConfig, pool: native.ThreadPool) -> TinyModel:
    """The same, packed in float32."""
    drawn, program = weights(config), build_program(config)
    matrices = {
        name: native.pack_weight(
            pool, w.view(np.uint8).reshape(-1), int(GGMLType.F32), w.shape[0], w.shape[1], "F32"
        )
        for name, w in drawn.items()
        if w.ndim == 2
    }
    vectors = {name: weight for name, weight in drawn.items() if weight.ndim == 1}
    return TinyModel(program, ModelWeights(matrices, vectors), drawn)


def _drawn(name: str, shape: tuple[int, ...]) -> FloatArray:
    rng = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    drawn = rng.standard_normal(shape, np.float32)
    values = np.float32(1) + drawn / 4 if len(shape) == 1 else drawn / np.float32(shape[-1] ** 0.5)
    return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
