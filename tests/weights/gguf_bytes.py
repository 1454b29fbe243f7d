"""GGUF files byte by byte, so that tests can break exactly one field."""

from __future__ import annotations

import struct

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def entry(key: str, type_id: int, payload: bytes) -> bytes:
    return string(key) + u32(type_id) + payload


def strings(key: str, items: list[str]) -> bytes:
    payload = u32(STRING) + u64(len(items)) + b"".join(string(item) for item in items)
    return entry(key, ARRAY, payload)


def tensor(name: str, dims: tuple[int, ...], type_id: int, offset: int) -> bytes:
    """`dims` as in the file: the contiguous one first."""
    return string(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(type_id) + u64(offset)


def gguf(
    entries: list[bytes],
    tensors: list[bytes],
    data: bytes = b"",
    *,
    version: int = 3,
    num_tensors: int | None = None,
    num_entries: int | None = None,
) -> bytes:
    """A whole file, its data at the default alignment of 32."""
    head = b"GGUF" + u32(version)
    head += u64(len(tensors) if num_tensors is None else num_tensors)
    head += u64(len(entries) if num_entries is None else num_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def small_model() -> bytes:
    """Two matrices and most kinds of metadata, 400-odd bytes: what the fuzzers start from."""
    return gguf(
        [
            entry("general.architecture", STRING, string("llama")),
            entry("llama.block_count", U32, u32(2)),
            entry("llama.eps", F32, struct.pack("<f", 1e-5)),
            entry("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
            strings("tokenizer.ggml.tokens", ["<s>", "Ġ", "日本"]),
            entry(
                "tokenizer.ggml.token_type", ARRAY, u32(I32) + u64(3) + struct.pack("<3i", 3, 1, 1)
            ),
        ],
        [tensor("embed", (32, 2), 8, 0), tensor("norm", (4,), 0, 96)],
        bytes(range(68)) + b"\0" * 28 + struct.pack("<4f", 1, 2, 3, 4),
    )
