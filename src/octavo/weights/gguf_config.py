"""From GGUF metadata to a `ModelConfig`: which key is which number, and what silence means.

Knows keys and llama.cpp's defaults, and that it stores Llama's q and k with interleaved rotary
pairs. Knows nothing of tensors' contents; ModelConfig checks what the numbers may be, `gguf_keys`
the keys that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import (
    MOST_HEADS,
    MOST_LAYERS,
    NO_MORE_POSITIONS,
    ModelConfig,
    all_but_every,
)
from octavo.model.registry import why_unsupported
from octavo.program.ops import ActivationKind
from octavo.program.slopes import Slopes, alibi_slopes
from octavo.weights.gguf_experts import mixture
from octavo.weights.gguf_header import MetadataValue, TensorInfo
from octavo.weights.gguf_keys import refusal
from octavo.weights.gguf_latent import latent, score_scale
from octavo.weights.gguf_metadata import Metadata
from octavo.weights.gguf_rope import rope_scaling
from octavo.weights.gguf_scales import ATTENTION_CAP, LOGIT_CAP, scales
from octavo.weights.gguf_uneven import ARCHITECTURE as UNEVEN
from octavo.weights.gguf_uneven import uneven

# Converters permute q and k for the others.
_HALF_STYLE = frozenset(
    {
        "qwen2", "qwen3", "gemma2", "gemma3", "falcon", "olmo2", "phi3", "starcoder2", "qwen3moe",
        "olmoe", "gpt-oss", "gemma4",
    }
)  # fmt: skip
_QK_NORM = frozenset({"qwen3", "olmo2", "qwen3moe", "olmoe", "gemma4"})
# In all layers, where a file with a window lists none.
_WINDOWED = frozenset({"llama", "phi3", "starcoder2"})
_UNSCALED = frozenset({"olmo2"})  # windowed layers turn by the base, unscaled, or by their own

# Of those whose MLPs have no gate, as the published models have it: no key of any file.
_ACTIVATIONS: Mapping[str, ActivationKind] = MappingProxyType(
    {
        "bloom": "gelu_tanh",
        "falcon": "gelu",
        "gpt2": "gelu_tanh",
        "mpt": "gelu",
        "starcoder": "gelu",
        "starcoder2": "gelu_tanh",
    }
)
_LEARNED_POSITIONS = frozenset({"gpt2", "starcoder"})

_LOCAL_BASE, _PATTERN = "rope.freq_base_swa", "attention.sliding_window_pattern"
_WINDOW = "attention.sliding_window"
_LIMIT, _LIMITED = "attention.clamp_kqv", frozenset({"mpt", "olmoe"})
_BIAS_MAX = "attention.max_alibi_bias"
_MOST_BIAS_MAX = 1e4  # far above any
_NO_ROPE_EVERY = "no_rope_layer_interval"  # no key of any file

# What files of a family mean by keys that they leave out; `octavo inspect` shows those it assumed.
_ASSUMED: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "gemma2": {_WINDOW: 4096, _PATTERN: 2, ATTENTION_CAP: 50, LOGIT_CAP: 30},
        "gemma3": {_LOCAL_BASE: 10000, _PATTERN: 6},
        "gemma4": {_LOCAL_BASE: 10000},
        "gpt-oss": {_WINDOW: 128, _PATTERN: 2},
        "olmo2": {_PATTERN: 4},
        "smollm3": {_NO_ROPE_EVERY: 4},
        "starcoder2": {_WINDOW: 4096},
    }
)


def model_config(
    metadata: Mapping[str, MetadataValue],
    tensors: Mapping[str, TensorInfo],
    rope_factors: Mapping[str, tuple[float, ...]] = MappingProxyType({}),
) -> ModelConfig:
    """The config of the model in a GGUF file; what it asks for beyond that is its `unsupported`.
    `rope_factors` are the values of those tensors that `gguf_rope` names.

    Raises ModelFormatError naming the key, and UnsupportedModelError for an architecture that has
    not even these numbers.
    """
    keys = Metadata(metadata)
    arch = keys.text("general.architecture")
    try:
        config = _config(keys, arch, tensors, rope_factors)
        config = replace(config, padding=_padding(metadata, config.vocab_size))
    except ModelFormatError:
        if why := why_unsupported(arch):
            raise UnsupportedModelError(why) from None
        raise
    return replace(config, unsupported=keys.refused or refusal(metadata, keys.read, config))


def _config(
    keys: Metadata,
    arch: str,
    tensors: Mapping[str, TensorInfo],
    rope_factors: Mapping[str, tuple[float, ...]],
) -> ModelConfig:
    hidden = keys.whole(f"{arch}.embedding_length")
    heads = keys.whole(f"{arch}.attention.head_count")
    rows = latent(keys, arch, heads)
    head_dim = keys.whole(f"{arch}.attention.key_length", default=hidden // max(heads, 1))
    if rows is not None:
        head_dim = rows.head_dim
    elif keys.whole(f"{arch}.attention.value_length", default=head_dim) != head_dim:
        keys.refuse(f"{arch}: value heads of another size than key heads")
    base = keys.real(f"{arch}.rope.freq_base", default=10000.0)
    rotary_dim = keys.whole(f"{arch}.rope.dimension_count", default=head_dim)
    scaling, context = rope_scaling(
        keys, arch, rope_factors, base=base, rotary_dim=rotary_dim,
        context=keys.whole(f"{arch}.context_length"),
    )  # fmt: skip
    layers = keys.whole(f"{arch}.block_count")
    if layers > MOST_LAYERS:  # before a list is made of so many
        raise keys.wrong(f"{arch}.block_count", f"at most {MOST_LAYERS}")
    placed = _windows(keys, arch, layers, context, base)
    scaled = scales(
        keys, arch, _ASSUMED.get(arch, {}),
        layers=layers, hidden=hidden, heads=heads, head_dim=head_dim,
    )  # fmt: skip
    if rows is not None:
        scaled["attention_scale"] = score_scale(keys, arch, head_dim)
    assumed = placed.pop("assumed") + scaled.pop("assumed")
    eps = "layer_norm_epsilon" if arch in _ACTIVATIONS else "layer_norm_rms_epsilon"
    no_eps = 0.0 if why_unsupported(arch) else None  # of other norms
    if arch == UNEVEN:
        sizes = uneven(keys, tensors, placed.get("windowed", ()), layers)
    else:
        sizes = {
            "ffn_size": keys.whole(f"{arch}.feed_forward_length"),
            "kv_heads": 1 if rows else keys.whole(f"{arch}.attention.head_count_kv", default=heads),
        }
    return ModelConfig(
        architecture=arch,
        num_layers=layers,
        hidden_size=hidden,
        heads=heads,
        head_dim=head_dim,
        vocab_size=_vocab_size(tensors),
        context=context,
        norm_eps=keys.real(f"{arch}.attention.{eps}", default=no_eps),
        rope_base=base,
        rotary_dim=rotary_dim,
        rope_style="half" if arch in _HALF_STYLE else "interleaved",
        tied_head="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        ffn_bias="blk.0.ffn_down.bias" in tensors,
        **asdict(scaling),
        why_no_longer=NO_MORE_POSITIONS if arch in _LEARNED_POSITIONS else "",
        parallel_norms=_parallel_norms(arch, tensors),
        activation=_ACTIVATIONS.get(arch, "silu"),
        qk_norm=arch in _QK_NORM,
        qkv_limit=keys.real(f"{arch}.{_LIMIT}", default=0.0) if arch in _LIMITED else 0.0,
        slopes=_slopes(keys, arch, heads),
        latent=rows,
        mixture=mixture(keys, arch, tensors, layers=layers, hidden=hidden),
        **sizes,
        **placed,
        **scaled,
        assumed=assumed,
    )


def _windows(keys: Metadata, arch: str, layers: int, context: int, base: float) -> dict[str, Any]:
    """Return which layers are windowed, and how these turn; which do not turn at all."""
    assumed = _ASSUMED.get(arch, {})
    if arch in _UNSCALED and not keys.has(f"{arch}.{_WINDOW}"):
        assumed = {}  # OLMo 2, which has none; 3 has
    window, windowed = 0, tuple[bool, ...]()
    pattern = f"{arch}.{_PATTERN}"
    if arch in _WINDOWED or _PATTERN in assumed or keys.has(pattern):
        window = keys.whole(f"{arch}.{_WINDOW}", default=assumed.get(_WINDOW, 0))
        windowed = keys.layers(pattern, layers, default=assumed.get(_PATTERN, 0))
    silent = (
        f"{name} {value:g}" for name, value in assumed.items() if not keys.has(f"{arch}.{name}")
    )
    kinds = (f"activation {_ACTIVATIONS[arch]}",) if arch in _ACTIVATIONS else ()
    found: dict[str, Any] = {"assumed": (*silent, *kinds)}
    if _NO_ROPE_EVERY in assumed:
        rotated = all_but_every(assumed[_NO_ROPE_EVERY], layers)
        found["without_rope"] = tuple(not each for each in rotated)
    if _LOCAL_BASE in assumed:
        local = keys.real(f"{arch}.{_LOCAL_BASE}", default=assumed[_LOCAL_BASE])
        found["local_rope_base"] = local
    elif arch in _UNSCALED:
        local = keys.real(f"{arch}.{_LOCAL_BASE}", default=base)
        if window > 0 and any(windowed):
            found["local_rope_base"] = local
    elif window >= context:  # no layer turns otherwise, and it hides nothing
        window = 0
    if window > 0 and any(windowed):
        found |= {"window": window, "windowed": windowed}
    return found


def _slopes(keys: Metadata, arch: str, heads: int) -> Slopes | None:
    """Those of the query heads, of architectures that have some."""
    if arch not in ("bloom", "mpt") or not 1 <= heads <= MOST_HEADS:
        return None  # or the config refuses that many
    if arch == "bloom":
        return Slopes(alibi_slopes(heads))
    most = keys.real(f"{arch}.{_BIAS_MAX}", default=0.0)
    if not 0 <= most < _MOST_BIAS_MAX:
        raise keys.wrong(f"{arch}.{_BIAS_MAX}", "a number above 0")
    if most == 0:
        keys.refuse(f"metadata {arch + '.' + _BIAS_MAX!r} is 0 or missing: only ALiBi is supported")
        return None
    return Slopes(alibi_slopes(heads, most))


def _parallel_norms(arch: str, tensors: Mapping[str, TensorInfo]) -> int:
    """Falcon's; its first forms, whose MLP follows attention, are not converted."""
    if arch != "falcon":
        return 0
    return 2 if "blk.0.attn_norm_2.weight" in tensors else 1


def _vocab_size(tensors: Mapping[str, TensorInfo]) -> int:
    if "token_embd.weight" not in tensors:
        raise ModelFormatError(
            "tensor 'token_embd.weight' is missing: expected (vocabulary, width)"
        )
    return tensors["token_embd.weight"].shape[0]


def _padding(metadata: Mapping[str, MetadataValue], rows: int) -> int:
    """Rows of the embedding beyond the tokens. Whoever needs a tokenizer refuses other tokens."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    return max(0, rows - len(tokens)) if isinstance(tokens, list) and tokens else 0
