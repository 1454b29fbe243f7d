"""Models that no package ships, as shapes: which tensors they have, of which type, and what a file
of them says besides.

The sizes are those of Llama 3.1 and 3.2, and of a small Mixtral with many experts; the weights are
random. Knows no files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from benchmarks import random_blocks
from benchmarks.gguf_writer import Tensor, Value
from benchmarks.synthetic_tokens import PARTIAL, tokens
from octavo.weights.ggml_type import GGMLType
from octavo.weights.rope_scaling import llama3_factors

# The number that llama.cpp gives to each mix; what it calls Q4_K_M has some tensors in Q6_K.
FORMATS: Mapping[str, int] = MappingProxyType({"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_M": 15})


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the head is the embedding
    rope_factor: float  # how much further than 8,192 positions the slow rotations reach
    experts: int = 0  # of a layer, each of `ffn` values; 0: layers are dense
    used: int = 0  # by a row


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "llama-3.2-1b": Shape(16, 2048, 8192, 32, 8, 64, 128_256, tied=True, rope_factor=32),
        "llama-3.1-8b": Shape(32, 4096, 14336, 32, 8, 128, 128_256, tied=False, rope_factor=8),
        "64-experts": Shape(
            12, 1024, 768, 16, 4, 64, 32_768, tied=True, rope_factor=8, experts=64, used=8
        ),
        "tiny": Shape(4, 256, 512, 4, 2, 64, 1_536, tied=True, rope_factor=8),
        "tiny-experts": Shape(
            4, 256, 256, 4, 2, 64, 1_536, tied=True, rope_factor=8, experts=8, used=2
        ),
    }
)
_ROPE_BASE, _TRAINED = 500_000.0, 8192


def metadata(name: str, shape: Shape, format: str) -> dict[str, Value]:
    return {
        "general.architecture": "llama",
        "general.name": f"random weights in the shape of {name}",
        "general.file_type": FORMATS[format],
        "general.quantization_version": 2,
        "llama.block_count": shape.layers,
        "llama.context_length": 131_072,
        "llama.embedding_length": shape.hidden,
        "llama.feed_forward_length": shape.ffn,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.key_length": shape.head_dim,
        "llama.attention.value_length": shape.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.rope.freq_base": _ROPE_BASE,
        "llama.vocab_size": shape.vocabulary,
        **_expert_counts(shape),
        **tokens(shape.vocabulary),
    }


def _expert_counts(shape: Shape) -> dict[str, Value]:
    if not shape.experts:
        return {}
    return {"llama.expert_count": shape.experts, "llama.expert_used_count": shape.used}


def tensors(shape: Shape, format: str, seed: int) -> Iterator[Tensor]:
    """All tensors. Matrices have a variance of 1 / columns, and norms are 1: so activations keep
    their size from layer to layer, and logits are about 1."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    of = partial(_matrix, seed)
    most, more = _types(format)
    head = GGMLType.Q8_0 if format == "Q8_0" else GGMLType.Q6_K
    vocabulary = shape.vocabulary, shape.hidden
    if shape.tied:
        yield _head(seed, "token_embd.weight", vocabulary, head)
    else:
        yield of("token_embd.weight", vocabulary, most)
    factors = llama3_factors(
        _ROPE_BASE, shape.head_dim, factor=shape.rope_factor, original=_TRAINED, low=1, high=4
    )
    yield _floats("rope_freqs.weight", factors)
    for i in range(shape.layers):
        block = f"blk.{i}."
        value = more if _gets_more(i, shape.layers) else most
        yield _floats(f"{block}attn_norm.weight", [1.0] * shape.hidden)
        yield of(f"{block}attn_q.weight", (q, shape.hidden), most)
        yield of(f"{block}attn_k.weight", (kv, shape.hidden), most)
        yield of(f"{block}attn_v.weight", (kv, shape.hidden), value)
        yield of(f"{block}attn_output.weight", (shape.hidden, q), most)
        yield _floats(f"{block}ffn_norm.weight", [1.0] * shape.hidden)
        name, each = "", tuple[int, ...]()
        if shape.experts:
            yield of(f"{block}ffn_gate_inp.weight", (shape.experts, shape.hidden), GGMLType.F32)
            name, each = "_exps", (shape.experts,)
        yield of(f"{block}ffn_gate{name}.weight", (*each, shape.ffn, shape.hidden), most)
        yield of(f"{block}ffn_up{name}.weight", (*each, shape.ffn, shape.hidden), most)
        yield of(f"{block}ffn_down{name}.weight", (*each, shape.hidden, shape.ffn), value)
    yield _floats("output_norm.weight", [1.0] * shape.hidden)
    if not shape.tied:
        yield _head(seed, "output.weight", vocabulary, head)


def _types(format: str) -> tuple[GGMLType, GGMLType]:
    """The type of most matrices, and of those that a mix gives more bits."""
    if format == "Q4_K_M":
        return GGMLType.Q4_K, GGMLType.Q6_K
    return GGMLType[format], GGMLType[format]


def _gets_more(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= layers - eighth or (layer - eighth) % 3 == 2


def _matrix(seed: int, name: str, shape: tuple[int, ...], type: GGMLType) -> Tensor:
    spread = 1 / math.sqrt(shape[-1])
    chunks = partial(random_blocks.chunks, type, math.prod(shape), spread, seed=seed, name=name)
    return Tensor(name, shape, type, chunks)


def _head(seed: int, name: str, shape: tuple[int, int], type: GGMLType) -> Tensor:
    """A matrix whose rows of PARTIAL are 0: these tokens are never the likeliest, for a server may
    fail on an answer that is no UTF-8."""
    whole = _matrix(seed, name, shape, type)
    row = whole.nbytes // shape[0]
    begin, end = PARTIAL.start * row, PARTIAL.stop * row

    def chunks() -> Iterator[bytes]:
        at = 0
        for chunk in whole.chunks():
            zeros = range(max(begin - at, 0), min(end - at, len(chunk)))
            at += len(chunk)
            if zeros:
                chunk = chunk[: zeros.start] + bytes(len(zeros)) + chunk[zeros.stop :]
            yield chunk

    return Tensor(name, shape, type, chunks)


def _floats(name: str, values: Sequence[float]) -> Tensor:
    raw = struct.pack(f"<{len(values)}f", *values)
    return Tensor(name, (len(values),), GGMLType.F32, lambda: [raw])
