"""From GGUF metadata to a `ModelConfig`: which key is which number, and what silence means.

Knows keys and llama.cpp's defaults, and that it stores Llama's q and k with interleaved rotary
pairs. Knows nothing of tensors' contents; ModelConfig checks what the numbers may be.
"""

from __future__ import annotations

from collections.abc import Mapping

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.weights.gguf_header import MetadataValue, TensorInfo

_HALF_STYLE = frozenset({"qwen2", "gemma3", "falcon"})  # converters permute q and k for the others


def model_config(
    metadata: Mapping[str, MetadataValue],
    tensors: Mapping[str, TensorInfo],
    rope_factors: tuple[float, ...] = (),
) -> ModelConfig:
    """The config of the model in a GGUF file. Raises ModelFormatError naming the key."""
    keys = _Keys(metadata)
    arch = keys.text("general.architecture")
    hidden = keys.whole(f"{arch}.embedding_length")
    heads = keys.whole(f"{arch}.attention.head_count")
    head_dim = keys.whole(f"{arch}.attention.key_length", default=hidden // max(heads, 1))
    if keys.whole(f"{arch}.attention.value_length", default=head_dim) != head_dim:
        raise UnsupportedModelError(f"{arch}: value heads of another size than key heads")
    scaling = keys.text(f"{arch}.rope.scaling.type", default="linear")
    if scaling not in ("none", "linear"):
        raise UnsupportedModelError(
            f"{arch}.rope.scaling.type is {scaling!r}: none and linear are supported"
        )
    factor = keys.real(f"{arch}.rope.scaling.factor", default=1.0)
    if "token_embd.weight" not in tensors:
        raise ModelFormatError(
            "tensor 'token_embd.weight' is missing: expected (vocabulary, width)"
        )
    return ModelConfig(
        architecture=arch,
        num_layers=keys.whole(f"{arch}.block_count"),
        hidden_size=hidden,
        ffn_size=keys.whole(f"{arch}.feed_forward_length"),
        heads=heads,
        kv_heads=keys.whole(f"{arch}.attention.head_count_kv", default=heads),
        head_dim=head_dim,
        vocab_size=tensors["token_embd.weight"].shape[0],
        context=keys.whole(f"{arch}.context_length"),
        norm_eps=keys.real(f"{arch}.attention.layer_norm_rms_epsilon"),
        rope_base=keys.real(f"{arch}.rope.freq_base", default=10000.0),
        rotary_dim=keys.whole(f"{arch}.rope.dimension_count", default=head_dim),
        rope_style="half" if arch in _HALF_STYLE else "interleaved",
        tied_head="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        rope_factors=rope_factors,
        rope_scale=1.0 if scaling == "none" else factor,
    )


class _Keys:
    def __init__(self, metadata: Mapping[str, MetadataValue]) -> None:
        self._metadata = metadata

    def text(self, key: str, default: str | None = None) -> str:
        value = self._metadata.get(key, default)
        if not isinstance(value, str):
            raise self._refuse(key, "a string")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self._metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._refuse(key, "a whole number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._metadata.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._refuse(key, "a number")
        return float(value)

    def _refuse(self, key: str, expected: str) -> ModelFormatError:
        found = repr(self._metadata[key])[:80] if key in self._metadata else "nothing"
        return ModelFormatError(f"metadata {key!r}: expected {expected}, found {found}")
