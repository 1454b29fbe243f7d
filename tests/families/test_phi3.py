"""Phi-3's fused matrices: the same weights as a directory, as a GGUF file, and taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.errors import ModelFormatError
from octavo.kernels import default_isa, native
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.families.gguf_files import llama_cpp_names, write_gguf
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed, write_json, write_weights

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
VARIANTS = ["phi3", "phi3-partial"]


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def gguf_file(
    path: Path,
    variant: str,
    changes: Mapping[str, int | float] = MappingProxyType({}),
    *,
    quantised: bool = False,
    more: Mapping[str, FloatArray] = MappingProxyType({}),
) -> Path:
    config = config_of(variant)
    heads = config["num_attention_heads"]
    head_dim = config["hidden_size"] // heads
    metadata = {
        "context_length": config["max_position_embeddings"],
        "rope.scaling.original_context_length": config["original_max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": int(head_dim * config.get("partial_rotary_factor", 1)),
        "rope.freq_base": float(config["rope_theta"]),
        "attention.sliding_window": config["sliding_window"],
    }
    tensors = {**llama_cpp_names(drawn(variant), NAMES), **more}
    matrices = [name for name, each in tensors.items() if each.ndim == 2]
    return write_gguf(
        path, "phi3", {**metadata, **changes}, tensors, quantised=matrices if quantised else ()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_forms_have_the_same_bits(variant: str, tmp_path: Path) -> None:
    of_directory = loaded(directory(tmp_path / "directory", variant))
    of_file = loaded(gguf_file(tmp_path / "phi3.gguf", variant))
    assert np.array_equal(logits(of_file), logits(of_directory))


@pytest.mark.parametrize("variant", VARIANTS)
def test_taken_apart_it_is_a_mistral(variant: str, tmp_path: Path) -> None:
    """Where all of a head turns."""
    config, golden = config_of(variant), golden_of(variant)
    config.pop("partial_rotary_factor", None)
    fused = write_directory(tmp_path / "phi3", variant, golden["shapes"], golden["seed"])
    write_json(fused / "config.json", config)
    apart = directory(tmp_path / "mistral", "mistral")
    kept = ("hidden_size", "num_attention_heads", "num_key_value_heads", "sliding_window",
            "tie_word_embeddings", "vocab_size", "rope_theta")  # fmt: skip
    changed(apart, "config.json", head_dim=None, **{name: config[name] for name in kept})
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    write_weights(apart, taken_apart(drawn(variant), config, head_dim), dtype="BF16")
    assert np.array_equal(logits(loaded(apart)), logits(loaded(fused)))


def taken_apart(
    tensors: dict[str, FloatArray], config: dict[str, Any], head_dim: int
) -> dict[str, FloatArray]:
    q, kv = (config[f"num_{of}_heads"] * head_dim for of in ("attention", "key_value"))
    found: dict[str, FloatArray] = {}
    for name, values in tensors.items():
        if "qkv_proj" in name:
            parts = zip("qkv", np.split(values, (q, q + kv)), strict=True)
            found |= {name.replace("qkv_proj", f"{part}_proj"): each for part, each in parts}
        elif "gate_up_proj" in name:
            halves = zip(("gate", "up"), np.split(values, 2), strict=True)
            found |= {name.replace("gate_up", part): each for part, each in halves}
        else:
            found[name] = values
    return found


def test_a_quantised_file_is_packed_row_by_row_as_it_is(tmp_path: Path) -> None:
    """Its rows are whole blocks, so no bit of them changes."""
    path = gguf_file(tmp_path / "phi3.gguf", "phi3", quantised=True)
    packed, unpacked = loaded(path, weights=None), loaded(path)
    assert {matrix.format for matrix in packed.weights.matrices.values()} == {"W8"}
    for name, matrix in packed.weights.matrices.items():
        row = np.empty(matrix.cols, np.float32)
        for i in (0, matrix.rows - 1):
            native.expand_row(default_isa(), matrix, i, row)
            assert np.array_equal(row, unpacked.exact[name][i])
    chunks = all_logits(make_runner(packed, POOL, kv_dtype="f32"), TOKENS, cuts=(7, 50))
    assert np.array_equal(chunks, logits(packed))


def test_a_window_of_none_and_one_beyond_the_context(tmp_path: Path) -> None:
    for window in (0, 512, 262144):
        key = {"attention.sliding_window": window}
        header = read_header(gguf_file(tmp_path / "phi3.gguf", "phi3", key))
        assert [spec.window for spec in header.program().groups] == [0]
    header = read_header(gguf_file(tmp_path / "phi3.gguf", "phi3"))
    assert [spec.window for spec in header.program().groups] == [24]


def test_a_fused_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "phi3.gguf", "phi3", {"attention.head_count_kv": 3})
    said = r"phi3.gguf: tensor 'blk.0.attn_qkv.weight' at offset \d+: expected shape \(192, 96\), "
    with pytest.raises(ModelFormatError, match=rf"{said}found \(160, 96\)"):
        loaded(path)
    folder = directory(tmp_path / "directory", "phi3")
    changed(folder, "config.json", num_key_value_heads=3)
    said = r"tensor 'model.layers.0.self_attn.qkv_proj.weight' of model.safetensors at offset \d+: "
    with pytest.raises(ModelFormatError, match=rf"{said}expected shape \(192, 96\), found"):
        loaded(folder)


def test_longrope_of_a_file_is_that_of_its_directory(tmp_path: Path) -> None:
    """The converter writes two tensors, and the amplitude that a directory leaves to compute."""
    variant = "phi3-longrope"
    scaling = config_of(variant)["rope_scaling"]
    factors = {
        f"rope_factors_{name}.weight": np.array(scaling[f"{name}_factor"], np.float32)
        for name in ("short", "long")
    }
    amplitude = (1 + math.log(512 / 28) / math.log(28)) ** 0.5
    path = gguf_file(
        tmp_path / "phi3.gguf", variant, {"rope.scaling.attn_factor": amplitude}, more=factors
    )
    of_file, of_directory = (
        read_header(each).config for each in (path, directory(tmp_path / "directory", variant))
    )
    for context in (28, 29):
        of_one, of_other = (each.for_context(context) for each in (of_file, of_directory))
        assert of_one.rope_factors == pytest.approx(of_other.rope_factors)
        assert of_one.rope_factors[-1] == pytest.approx(1.6 if context == 28 else 19)
        assert of_one.rope_amplitude == pytest.approx(of_other.rope_amplitude)
