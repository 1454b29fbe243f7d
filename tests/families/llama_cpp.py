"""What of a GGUF file is compared with llama.cpp's own conversion: keys, and tensors by checksum.

Knows no torch.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np

GOLDEN = Path(__file__).parent / "llama_cpp.json"
TOKENS = 131  # rows of the vocabulary that are tokens


def contents(path: Path) -> dict[str, Any]:
    """The architecture, its keys, and of each tensor its shape and the CRC-32 of its float32."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    prefix = f"{architecture}."
    tensors = {each.name: _summary(each.name, each.data) for each in reader.tensors}
    return {
        "architecture": architecture,
        "keys": {k: v for k, v in sorted(fields.items()) if k.startswith(prefix)},
        "tensors": dict(sorted(tensors.items())),
    }


def _summary(name: str, data: Any) -> list[Any]:
    values = np.ascontiguousarray(data, np.float32)
    if name in ("token_embd.weight", "output.weight"):
        values = values[:TOKENS]
    return [list(values.shape), zlib.crc32(values.tobytes())]
