"""gpt-oss in every form that files have: experts as floats, (in, out) with gate and up by turns, or
in MXFP4; GGUF files with both apart. What transformers says of it is in `test_directories`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import FloatArray
from octavo.errors import ModelError
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed, write_weights

VARIANTS = ["gpt-oss", "gpt-oss-new"]
Tensors = dict[str, FloatArray]
Bytes = NDArray[np.uint8]
_MXFP4 = gguf.GGMLQuantizationType.MXFP4
_PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "post_attention_norm", "mlp.router": "ffn_gate_inp",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def rounded(tensors: Tensors) -> tuple[Tensors, dict[str, Bytes]]:
    """The same with experts of values that MXFP4 has, and the bytes of these, (out, in)."""
    found, blocks = dict(tensors), {}
    for name, values in tensors.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            rows = np.ascontiguousarray(values.swapaxes(1, 2))  # (experts, out, in)
            blocks[name] = gguf.quants.quantize(rows, _MXFP4)
            exact = gguf.quants.dequantize(blocks[name], _MXFP4)
            found[name] = np.ascontiguousarray(exact.swapaxes(1, 2))
    return found, blocks


def pairs_of(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """The two tensors of a directory: nibbles with two values side by side, and scales."""
    split = blocks.reshape(*blocks.shape[:-1], -1, 17)
    low, high = split[..., 1:] & 15, split[..., 1:] >> 4
    values = np.concatenate([low, high], axis=-1)
    return values[..., 0::2] | values[..., 1::2] << 4, np.ascontiguousarray(split[..., 0])


def mxfp4_directory(path: Path, variant: str, method: str = "mxfp4") -> Path:
    tensors, blocks = rounded(drawn(variant))
    directory(path, variant)
    kept: dict[str, Any] = {name: v for name, v in tensors.items() if name not in blocks}
    for name, each in blocks.items():
        kept[f"{name}_blocks"], kept[f"{name}_scales"] = pairs_of(each)
    write_weights(path, kept, dtype="BF16")
    changed(path, "config.json", quantization_config={"quant_method": method})
    return path


def gguf_file(path: Path, variant: str, *, mxfp4: bool = False, **keys: Any) -> Path:
    config = config_of(variant)
    tensors, blocks = rounded(drawn(variant)) if mxfp4 else (drawn(variant), {})
    rope = config.get("rope_parameters") or config["rope_scaling"]
    writer = gguf.GGUFWriter(path, "gpt-oss")
    for key, value in {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"],
        "attention.sliding_window": config["sliding_window"],
        "expert_count": config["num_local_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_feed_forward_length": config["intermediate_size"],
        "rope.scaling.original_context_length": rope["original_max_position_embeddings"], **keys,
    }.items():  # fmt: skip
        writer.add_uint32(f"gpt-oss.{key}", value)
    for key, real in {
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "rope.freq_base": 150000.0,
        "rope.scaling.factor": rope["factor"], "rope.scaling.yarn_beta_fast": rope["beta_fast"],
    }.items():  # fmt: skip
        writer.add_float32(f"gpt-oss.{key}", real)
    writer.add_string("gpt-oss.rope.scaling.type", "yarn")
    for name, values in tensors.items():
        bare, bias = name.removesuffix("_bias"), name.endswith("proj_bias")
        kind = "bias" if bias else "weight"
        if bare.endswith("gate_up_proj"):
            prefix = f"blk.{name.split('.')[2]}.ffn"
            for first, part in enumerate(("gate", "up")):
                ours = f"{prefix}_{part}_exps.{kind}"
                if name in blocks:
                    writer.add_tensor(ours, blocks[name][:, first::2].copy(), raw_dtype=_MXFP4)
                else:
                    part_values = values[..., first::2]
                    writer.add_tensor(
                        ours, _turned(part_values) if not bias else part_values.copy()
                    )
        elif bare.endswith("down_proj"):
            ours = f"blk.{name.split('.')[2]}.ffn_down_exps.{kind}"
            if name in blocks:
                writer.add_tensor(ours, blocks[name], raw_dtype=_MXFP4)
            else:
                writer.add_tensor(ours, values if bias else _turned(values))
        elif name.endswith("sinks"):
            writer.add_tensor(f"blk.{name.split('.')[2]}.attn_sinks.weight", values)
        else:
            stem, _, kind = name.rpartition(".")
            if stem in _PARTS:
                writer.add_tensor(f"{_PARTS[stem]}.{kind}", values)
            else:
                _, _, layer, part = stem.split(".", 3)
                writer.add_tensor(f"blk.{layer}.{_PARTS[part]}.{kind}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _turned(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values.swapaxes(1, 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gguf_file_has_the_bits_of_its_directory(variant: str, tmp_path: Path) -> None:
    want = logits(loaded(directory(tmp_path / "folder", variant)))
    path = gguf_file(tmp_path / "model.gguf", variant)
    assert np.array_equal(logits(loaded(path)), want)
    assert "attention.sliding_window_pattern 2" in read_header(path).config.assumed


@pytest.mark.parametrize("variant", VARIANTS)
def test_mxfp4_experts_are_the_same_values_in_every_form(variant: str, tmp_path: Path) -> None:
    floats = directory(tmp_path / "floats", variant)
    write_weights(floats, rounded(drawn(variant))[0], dtype="BF16")
    want = logits(loaded(floats))
    folder = mxfp4_directory(tmp_path / "folder", variant)
    path = gguf_file(tmp_path / "model.gguf", variant, mxfp4=True)
    for each in (folder, path):
        assert np.array_equal(logits(loaded(each)), want)
    of_folder, of_file = (loaded(each, weights=None) for each in (folder, path))
    got = logits(of_folder)
    formats = {name: matrix.format for name, matrix in of_folder.weights.matrices.items()}
    assert {formats[name] for name in formats if "_exps." in name} == {"W4F"}
    for name, format in formats.items():
        if format == "W4F":
            ours, theirs = (m.weights.matrices[name].view() for m in (of_folder, of_file))
            assert np.array_equal(ours, theirs)
    assert np.sqrt(np.mean((got - want) ** 2)) / want.std() < 0.1  # rows rounded to int8
    chunks = all_logits(make_runner(of_folder, POOL, kv_dtype="f32"), TOKENS, cuts=(7, 50))
    assert np.array_equal(chunks, got)


def test_a_scale_that_is_no_number_is_refused_by_the_tensors_name(tmp_path: Path) -> None:
    tensors, blocks = rounded(drawn("gpt-oss"))
    folder = directory(tmp_path, "gpt-oss")
    name = "model.layers.1.mlp.experts.down_proj"
    kept: dict[str, Any] = {each: v for each, v in tensors.items() if each not in blocks}
    for each, values in blocks.items():
        kept[f"{each}_blocks"], kept[f"{each}_scales"] = pairs_of(values)
    kept[f"{name}_scales"][2, 5, 0] = 255
    write_weights(folder, kept, dtype="BF16")
    for weights in (None, "bf16", "f32"):
        with pytest.raises(ModelError, match=r"a scale of MXFP4 that is NaN \(255\)") as refused:
            loaded(folder, weights=weights)
        assert f"tensor '{name}_blocks'" in str(refused.value)


def test_a_routers_bias_that_is_no_number_is_refused_as_its_matrix_is(tmp_path: Path) -> None:
    folder, tensors = directory(tmp_path, "gpt-oss"), drawn("gpt-oss")
    name = "model.layers.1.mlp.router.bias"
    tensors[name] = tensors[name].copy()
    tensors[name][2] = np.nan
    write_weights(folder, tensors, dtype="BF16")
    with pytest.raises(ModelError, match=f"'{name}' .* chooses experts and has values that are"):
        loaded(folder)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"swiglu_limit": 5.0}, "swiglu_limit is 5.0: 7 is supported"),
    ({"swiglu_alpha": 1.0}, "swiglu_alpha is 1.0: 1.702 is supported"),
    ({"rope_scaling": None}, "rope_parameters is missing: expected how positions are scaled"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised by bitsandbytes"),
    ({"num_experts_per_tok": 7}, "num_experts_per_tok is 7: expected a whole number from 1 to"),
    ({"sliding_window": 0}, "expected full_attention everywhere, as no window is used"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=lambda each: str(each)[:24])
def test_what_it_does_not_compute_is_refused_by_name(
    fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = directory(tmp_path, "gpt-oss")
    changed(folder, "config.json", **fields)
    with pytest.raises(ModelError, match=said):
        loaded(folder)
