"""How wide K and V are, from a dtype's name. Planning knows more dtypes than the engine runs."""

from __future__ import annotations

from octavo.config import split_kv_dtype
from octavo.errors import UsageError

BITS = {"f32": 32, "f16": 16, "bf16": 16}


def parse_kv_bits(text: str) -> tuple[int, int]:
    """Bits of a value of K and of V: "f16" for both, or "k=f32,v=bf16"."""
    k, v = split_kv_dtype(text)
    if k not in BITS or v not in BITS:
        raise UsageError(
            f"--kv-dtype {text!r}: expected one of {', '.join(BITS)}, or k=…,v=… of them"
        )
    return BITS[k], BITS[v]
