"""Heads that are no whole vectors of the kernels: filled up with zeros, which pages store and which
nothing that is computed shows (`test_directories` holds them against transformers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from octavo import LLM
from octavo.batch import FloatArray
from octavo.errors import UnsupportedModelError
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.families.gguf_files import llama_cpp_names, write_gguf
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def test_the_zeros_stand_after_each_head(tmp_path: Path) -> None:
    tensors, found = drawn("llama-head-20"), loaded(directory(tmp_path, "llama-head-20")).exact
    for ours, theirs, heads in (("q", "q", 4), ("k", "k", 2), ("v", "v", 2)):
        rows = found[f"blk.1.attn_{ours}.weight"].reshape(heads, 32, 96)
        want = tensors[f"model.layers.1.self_attn.{theirs}_proj.weight"].reshape(heads, 20, 96)
        assert np.array_equal(rows[:, :20], want)
        assert not rows[:, 20:].any()
    columns = found["blk.1.attn_output.weight"].reshape(96, 4, 32)
    want = tensors["model.layers.1.self_attn.o_proj.weight"].reshape(96, 4, 20)
    assert np.array_equal(columns[:, :, :20], want)
    assert not columns[:, :, 20:].any()


def test_pages_have_the_bytes_that_are_stored(tmp_path: Path) -> None:
    path = directory(tmp_path, "llama-head-20")
    a_token = 3 * 2 * 2 * 32 * 4  # layers, K and V, KV heads, dims, float32
    llm = LLM(path, threads=1, kv_dtype="f32", kv_memory="16M", block_size=16, context=256)
    assert llm.info.block_bytes == 16 * a_token


def gguf_file(path: Path, tensors: dict[str, FloatArray], quantised: tuple[str, ...] = ()) -> Path:
    config = config_of("mistral-head-24")
    metadata: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "rope.freq_base": float(config["rope_theta"]),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }
    return write_gguf(path, "llama", metadata, tensors, quantised=quantised)


def test_pairs_side_by_side_are_the_first_dims_too(tmp_path: Path) -> None:
    """As llama.cpp's files have them; only the order of sums differs."""
    config, tensors = config_of("mistral-head-24"), drawn("mistral-head-24")
    for name, heads in (("q_proj", config["num_attention_heads"]), ("k_proj", 1)):
        for each in [each for each in tensors if name in each]:
            pairs = tensors[each].reshape(heads, 2, 12, -1).swapaxes(1, 2)
            tensors[each] = np.ascontiguousarray(pairs).reshape(heads * 24, -1)
    of_file = gguf_file(tmp_path / "llama.gguf", llama_cpp_names(tensors, NAMES))
    folder = directory(tmp_path / "directory", "mistral-head-24")
    changed(folder, "config.json", sliding_window=None)
    want = logits(loaded(folder))
    error = np.abs(logits(loaded(of_file)) - want).max(axis=1)
    assert (error <= 2e-5 * np.abs(want).max(axis=1)).all()


def test_blocks_across_heads_are_refused_unless_they_are_unpacked(tmp_path: Path) -> None:
    tensors = llama_cpp_names(drawn("mistral-head-24"), NAMES)
    matrices = tuple(name for name, each in tensors.items() if each.ndim == 2)
    path = gguf_file(tmp_path / "q8_0.gguf", tensors, matrices)
    with pytest.raises(UnsupportedModelError) as refused:
        loaded(path, weights=None)
    assert str(refused.value).startswith(f"{path}: tensor 'blk.0.attn_output.weight' at offset ")
    assert str(refused.value).endswith(
        "is Q8_0: its rows are blocks of 32 values, which the heads of this model cut: run it "
        "unpacked, with --weights bf16 or f32"
    )
    unpacked = loaded(path)
    exact = {name: _rounded(each) if name in matrices else each for name, each in tensors.items()}
    same = loaded(gguf_file(tmp_path / "f32.gguf", exact))
    assert np.array_equal(logits(unpacked), logits(same))


def test_quantised_rows_of_heads_are_packed_as_they_are(tmp_path: Path) -> None:
    tensors = llama_cpp_names(drawn("mistral-head-24"), NAMES)
    quantised = tuple(name for name in tensors if ".attn_q" in name or ".ffn_" in name)
    quantised = tuple(name for name in quantised if tensors[name].ndim == 2)
    model = loaded(gguf_file(tmp_path / "mixed.gguf", tensors, quantised), weights=None)
    formats = {name: matrix.format for name, matrix in model.weights.matrices.items()}
    assert {name for name, format in formats.items() if format == "W8"} == set(quantised)
    got = logits(model)
    assert np.array_equal(logits(model, fuse=False), got)
    cut = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS, cuts=(7, 50))
    assert np.array_equal(cut, got)


def _rounded(values: FloatArray) -> FloatArray:
    """What Q8_0 keeps of it."""
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0).reshape(-1)
    return dequantize(GGMLType.Q8_0, data, values.shape)
