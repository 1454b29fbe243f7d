"""The families' tiny models as GGUF files, written by the `gguf` package as llama.cpp's converter
names and orders them. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from octavo.batch import FloatArray


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    *,
    quantised: Collection[str] = (),
) -> Path:
    """A model without a tokenizer. `metadata` is of the architecture's namespace; the `quantised`
    are stored as Q8_0."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(f"{architecture}.{key}", value)
            case float():
                writer.add_float32(f"{architecture}.{key}", value)
            case str():
                writer.add_string(f"{architecture}.{key}", value)
            case list():
                writer.add_array(f"{architecture}.{key}", value)
            case _:
                writer.add_uint32(f"{architecture}.{key}", value)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for name, values in tensors.items():
        if name in quantised:
            writer.add_tensor(name, gguf.quants.quantize(values, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(values: FloatArray, heads: int) -> FloatArray:
    """The rows of q or k with the two of a rotated pair side by side, not half a head apart."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def llama_cpp_names(
    tensors: Mapping[str, FloatArray], layer: Mapping[str, str]
) -> dict[str, FloatArray]:
    """The tensors of a directory by llama.cpp's names; `layer` has those of a layer's parts."""
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    found: dict[str, FloatArray] = {}
    for name, values in tensors.items():
        stem, _, kind = name.rpartition(".")
        if stem not in top:
            _, _, number, part = stem.split(".", 3)
            found[f"blk.{number}.{layer[part]}.{kind}"] = values
        else:
            found[f"{top[stem]}.{kind}"] = values
    return found
