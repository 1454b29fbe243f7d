"""The keys that no file may leave out, and how tests read a config from them and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.model.config import ModelConfig
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import MetadataValue, TensorInfo

LEAST: dict[str, MetadataValue] = {  # what no file may leave out
    "block_count": 3, "embedding_length": 64, "feed_forward_length": 96, "context_length": 512,
    "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-6,
}  # fmt: skip
SILENT = ModelConfig(
    architecture="llama", num_layers=3, hidden_size=64, ffn_size=96, heads=4, kv_heads=4,
    head_dim=16, vocab_size=300, context=512, norm_eps=1e-6, rope_base=10000.0, rotary_dim=16,
    rope_style="interleaved", tied_head=True, qkv_bias=False,
)  # fmt: skip


def read(
    *more_tensors: str,
    arch: str = "llama",
    factors: tuple[float, ...] = (),
    more_factors: Mapping[str, tuple[float, ...]] | None = None,
    elsewhere: Mapping[str, MetadataValue] | None = None,
    **keys: Any,  # MetadataValue
) -> ModelConfig:
    """The config of a file with the least keys and these; `__` stands for a dot. `elsewhere` are
    keys outside the architecture's namespace."""
    named = LEAST | {name.replace("__", "."): value for name, value in keys.items()}
    metadata = {f"{arch}.{name}": value for name, value in named.items()} | dict(elsewhere or {})
    tensors = {
        name: TensorInfo(name, (300, 64), GGMLType.F32, 0, 300 * 64 * 4)
        for name in ("token_embd.weight", *more_tensors)
    }
    named_factors = dict(more_factors or {})
    if factors:
        named_factors["rope_freqs.weight"] = factors
    return model_config({"general.architecture": arch, **metadata}, tensors, named_factors)
