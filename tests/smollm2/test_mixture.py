"""The real model dressed as a Mixtral: four experts a layer, each its MLP; a row uses two of them.

Their factors add up to 1, so it answers as before, whichever it uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from octavo import LLM

EXPERTS = 4
HIDDEN = 576


def dressed(source: Path, path: Path) -> Path:
    """Blocks of the MLPs stay as they are, four times over; the routers are drawn."""
    reader, rng = gguf.GGUFReader(source), np.random.default_rng(8)
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind, *of = field.types
            sub = of[-1] if of else None
            writer.add_key_value(name, field.contents(), kind, sub_type=sub)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(2)
    for tensor in reader.tensors:
        name, data = tensor.name, tensor.data
        if ".ffn_" in name and ".ffn_norm." not in name:
            name, data = name.replace(".weight", "_exps.weight"), np.stack([data] * EXPERTS)
        writer.add_tensor(name, data, raw_dtype=tensor.tensor_type)
        if ".ffn_norm." in name:
            router = rng.standard_normal((EXPERTS, HIDDEN), np.float32)
            writer.add_tensor(name.replace("ffn_norm", "ffn_gate_inp"), router)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_mixture_of_equal_experts_answers_as_the_one(smollm2_path: Path, tmp_path: Path) -> None:
    path = dressed(smollm2_path, tmp_path / "mixture.gguf")
    options: dict[str, Any] = {
        "threads": 2, "context": 256, "kv_dtype": "f32", "weights": "f32", "pack_cache": False,
    }  # fmt: skip
    dense, mixture = LLM(smollm2_path, **options), LLM(path, **options)
    tokens = dense.tokenizer.encode("It was a bright cold day in April, and the clocks were")
    want, got = dense.logits(tokens), mixture.logits(tokens)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    assert np.array_equal(got.argmax(axis=1), want.argmax(axis=1))
