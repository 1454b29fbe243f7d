"""A whole model in a GGUF file of 311 KiB: random weights, a byte vocabulary, a chat template."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octavo.tokenizer.byte_level import char_to_byte
from tests.weights.gguf_bytes import ARRAY, F32, I32, STRING, U32, entry, string, strings, u32, u64
from tests.weights.gguf_bytes import gguf as gguf_file
from tests.weights.gguf_bytes import tensor as tensor_entry

TINY = "tiny.gguf"  # in the working directory of the tests of the command line
LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 64, 96, 4, 2, 16, 128
SPECIALS = ["<|im_start|>", "<|im_end|>"]
VOCAB = 256 + len(SPECIALS)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(
    path: Path,
    *,
    template: str | None = TEMPLATE,
    name: str = "Tiny",
    more: Sequence[bytes] = (),
    layers: int = LAYERS,
    kv_heads: int = KV_HEADS,
    architecture: str = "llama",
    specials: Sequence[str] = SPECIALS,
) -> Path:
    """The same bytes every time. `more` are metadata entries, each in place of one of its key;
    `specials`: the control tokens, of which the first begins a text and the last ends it."""
    random = np.random.default_rng(7)
    entries, data = [], b""
    shapes = _shapes(layers, kv_heads, architecture)
    shapes["token_embd.weight"] = (256 + len(specials), HIDDEN)
    for key, shape in shapes.items():
        scale = 1.0 if len(shape) == 1 else shape[1] ** -0.5
        values = np.ones(shape) if len(shape) == 1 else random.normal(0, scale, shape)
        entries.append(tensor_entry(key, shape[::-1], 0, len(data)))
        raw = values.astype("<f4").tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    own = _metadata(name, layers, kv_heads, architecture)
    metadata = {_key(e): e for e in (*own, *_tokenizer(template, specials), *more)}
    path.write_bytes(gguf_file(list(metadata.values()), entries, data))
    return path


def spm_entries(template: str) -> list[bytes]:
    """A vocabulary for `more` in which every word begins with SPM's blank."""
    tokens = ["<unk>", "<s>", "</s>", *"\u2581hi", *(f"\u2581{i}" for i in range(VOCAB - 6))]
    types = [2, 3, 3] + [1] * (VOCAB - 3)
    size = u64(VOCAB)
    return [
        entry("tokenizer.ggml.model", STRING, string("llama")),
        strings("tokenizer.ggml.tokens", tokens),
        entry("tokenizer.ggml.token_type", ARRAY, u32(I32) + size + struct.pack("<258i", *types)),
        entry("tokenizer.ggml.scores", ARRAY, u32(F32) + size + struct.pack("<258f", *range(258))),
        entry("tokenizer.ggml.bos_token_id", U32, u32(1)),
        entry("tokenizer.ggml.eos_token_id", U32, u32(2)),
        entry("tokenizer.chat_template", STRING, string(template)),
    ]


def _key(metadata_entry: bytes) -> bytes:
    size = int.from_bytes(metadata_entry[:8], "little")
    return metadata_entry[8 : 8 + size]


def _shapes(layers: int, kv_heads: int, architecture: str) -> dict[str, tuple[int, ...]]:
    q, kv = HEADS * HEAD_DIM, kv_heads * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (HIDDEN,),
            f"blk.{i}.attn_q.weight": (q, HIDDEN),
            f"blk.{i}.attn_k.weight": (kv, HIDDEN),
            f"blk.{i}.attn_v.weight": (kv, HIDDEN),
            f"blk.{i}.attn_output.weight": (HIDDEN, q),
            f"blk.{i}.ffn_norm.weight": (HIDDEN,),
            f"blk.{i}.ffn_gate.weight": (FFN, HIDDEN),
            f"blk.{i}.ffn_up.weight": (FFN, HIDDEN),
            f"blk.{i}.ffn_down.weight": (HIDDEN, FFN),
        }
        if architecture == "gemma3":
            shapes |= {
                f"blk.{i}.attn_q_norm.weight": (HEAD_DIM,),
                f"blk.{i}.attn_k_norm.weight": (HEAD_DIM,),
                f"blk.{i}.post_attention_norm.weight": (HIDDEN,),
                f"blk.{i}.post_ffw_norm.weight": (HIDDEN,),
            }
    return {**shapes, "output_norm.weight": (HIDDEN,)}


def _metadata(name: str, layers: int, kv_heads: int, architecture: str) -> list[bytes]:
    whole = {
        "block_count": layers, "embedding_length": HIDDEN, "feed_forward_length": FFN,
        "attention.head_count": HEADS, "attention.head_count_kv": kv_heads,
        "context_length": CONTEXT, "rope.dimension_count": HEAD_DIM,
    }  # fmt: skip
    return [
        entry("general.architecture", STRING, string(architecture)),
        entry("general.name", STRING, string(name)),
        *(entry(f"{architecture}.{key}", U32, u32(value)) for key, value in whole.items()),
        entry(f"{architecture}.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
    ]


def _tokenizer(template: str | None, specials: Sequence[str]) -> list[bytes]:
    tokens = [*char_to_byte(), *specials]
    types = [1] * 256 + [3] * len(specials)
    packed = struct.pack(f"<{len(types)}i", *types)
    found = [
        entry("tokenizer.ggml.model", STRING, string("gpt2")),
        entry("tokenizer.ggml.pre", STRING, string("smollm")),
        strings("tokenizer.ggml.tokens", tokens),
        entry("tokenizer.ggml.token_type", ARRAY, u32(I32) + u64(len(types)) + packed),
        strings("tokenizer.ggml.merges", []),
        entry("tokenizer.ggml.bos_token_id", U32, u32(256)),
        entry("tokenizer.ggml.eos_token_id", U32, u32(len(tokens) - 1)),
    ]
    if template is not None:
        found.append(entry("tokenizer.chat_template", STRING, string(template)))
    return found
