"""Names of cached blocks that hold across processes: chained SHA-256 of everything they depend on.

Knows the encoding only. A name says where to look; within the process it never decides what
matches: `prefix_index` compares the tokens themselves.

The encoding is canonical: each field is its tag, its length and its bytes, so no two different
contents have one encoding ("ab","c" is not "a","bc"; a salt is not an adapter of the same text).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Namespace:
    """What the K and V of equal tokens depend on, and who may see them."""

    fingerprint: str  # of the weights
    numerics: str  # the order of operations that computed them
    k_dtype: str
    v_dtype: str
    adapter: str = ""
    salt: str = ""  # the tenant


def root_name(namespace: Namespace) -> bytes:
    parts = [_field(b"kind", b"root")]
    for field in fields(namespace):
        text: str = getattr(namespace, field.name)
        # A lone surrogate, which JSON can carry, has no strict UTF-8.
        parts.append(_field(field.name.encode(), text.encode("utf-8", "surrogatepass")))
    return digest(b"".join(parts))


def block_name(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The name of the block of `tokens` that follows the block (or root) named `parent`."""
    packed = struct.pack(f"<{len(tokens)}q", *tokens)
    return digest(_field(b"kind", b"block") + _field(b"parent", parent) + _field(b"tokens", packed))


def _field(tag: bytes, value: bytes) -> bytes:
    return b"%c%b%b%b" % (len(tag), tag, len(value).to_bytes(8, "little"), value)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
