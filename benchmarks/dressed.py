"""One model's weights in the directories of several families: are its logits the same bits?

    python -m benchmarks.dressed [FOLDER]

SmolLM2, dequantised, is a Llama; it is also a Mistral, a Qwen2 whose biases are 0, a Phi-3 whose
matrices are fused and a Granite whose multipliers do nothing. gemma3-270m is held against its own
GGUF file. Prints a table. Needs both models in the library; the writers are the tests'.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from octavo import LLM
from octavo.batch import FloatArray
from octavo.environment import find_home
from octavo.weights import library
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.weights.hf.written import (
    config_json,
    their_name,
    their_values,
    write_json,
    write_tokenizer,
    write_weights,
)

_ROWS = 96
_TOKENS = [int(t) for t in np.random.default_rng(9).integers(3, 40000, _ROWS)]


def main(folder: Path) -> None:
    smollm2, gemma = (library.find(n, home=find_home()) for n in ("smollm2", "gemma3-270m"))
    config, tensors = _directory(smollm2)
    dressed: dict[str, tuple[dict[str, Any], dict[str, FloatArray]]] = {
        "LlamaForCausalLM": ({}, tensors),
        "MistralForCausalLM": ({"model_type": "mistral", "sliding_window": None}, tensors),
        "Qwen2ForCausalLM": ({"model_type": "qwen2"}, _biased(tensors)),
        "Phi3ForCausalLM": ({"model_type": "phi3", "sliding_window": None}, _fused(tensors)),
        "GraniteForCausalLM": ({"model_type": "granite", **_multipliers(config)}, tensors),
    }
    want: FloatArray | None = None
    for name, (changes, values) in dressed.items():
        path = _write(folder / name, smollm2, config | {"architectures": [name]} | changes, values)
        found = _logits(path)
        want = found if want is None else want
        _tell(f"SmolLM2 as {name}", found, want)
    path = _write(folder / "gemma3", gemma, *_directory(gemma))
    _tell("gemma3-270m, directory against GGUF", _logits(path), _logits(gemma))


def _directory(gguf: Path) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """config.json and the tensors by their names there."""
    header = read_header(gguf)
    config = header.config
    weights = reference_weights(header, header.program().weights()).items()
    tensors = {their_name(n, config): their_values(n, w, config) for n, w in weights}
    return config_json(config), tensors


def _write(
    path: Path, tokenizer_of: Path, config: Mapping[str, Any], tensors: Mapping[str, FloatArray]
) -> Path:
    path.mkdir(parents=True)
    write_json(path / "config.json", config)
    write_weights(path, tensors, dtype="F32")
    write_tokenizer(path, read_header(tokenizer_of).tokenizer_spec())
    return path


def _biased(tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    found = dict(tensors)
    for name, values in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            bias = np.zeros(len(values), np.float32)
            found[name.replace("weight", "bias")] = bias
    return found


def _fused(tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """q, k and v in one tensor, gate and up in another."""
    found = dict(tensors)
    for name in tensors:
        for first, others, fused in (
            ("self_attn.q_proj", ("self_attn.k_proj", "self_attn.v_proj"), "self_attn.qkv_proj"),
            ("mlp.gate_proj", ("mlp.up_proj",), "mlp.gate_up_proj"),
        ):
            if first in name:
                names = [name, *(name.replace(first, other) for other in others)]
                found[name.replace(first, fused)] = np.concatenate([found.pop(n) for n in names])
    return found


def _multipliers(config: Mapping[str, Any]) -> dict[str, float]:
    ones = dict.fromkeys(("embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0)
    return {**ones, "attention_multiplier": config["head_dim"] ** -0.5}


def _logits(model: Path) -> FloatArray:
    """After each token, float32 weights and pages: (rows, vocabulary)."""
    llm = LLM(model, weights="f32", kv_dtype="f32", context=2 * _ROWS)
    return llm.logits(_TOKENS)


def _tell(what: str, found: FloatArray, want: FloatArray) -> None:
    same = "==" if np.array_equal(found, want) else f"off by {np.abs(found - want).max():.3g}"
    print(f"{what:40} {len(found)} rows of {found.shape[1]:,}: {same}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        main(Path(made))
