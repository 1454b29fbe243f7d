"""DeepSeek-V2's tiny models as GGUF files of both kinds, with heads' matrices in one tensor and
apart; what is refused of them; what their pages keep."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.config import EngineConfig
from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.kernels import default_isa, native
from octavo.model.latent import Latent
from octavo.model.registry import build_program
from octavo.planning.memory import page_formats
from octavo.program.kv_bytes import expanded_bytes, kv_bytes_per_token
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.families.gguf_files import llama_cpp_names, write_gguf
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed

VARIANTS = ["deepseek2", "deepseek2-narrow-q"]
OF_LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "self_attn.o_proj": "attn_output",
    "mlp.gate": "ffn_gate_inp", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp",
}  # fmt: skip
_ONE = re.compile(r"(model\.layers\.\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def gguf_file(
    path: Path, variant: str, *, apart: bool, quantised: tuple[str, ...] = (), **keys: Any
) -> Path:
    """`apart`: as newer converters write heads' matrices, and keys of the pages' one KV head."""
    config = config_of(variant)
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    plain, turned = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    own = {"attention.key_length": plain + turned, "attention.value_length": config["v_head_dim"]}
    lengths = {**own, "attention.head_count_kv": heads}
    if apart:
        lengths = {f"{name}_mla": value for name, value in own.items()} | {
            "attention.key_length": rank + turned, "attention.value_length": rank,
            "attention.head_count_kv": 1,
        }  # fmt: skip
    metadata: dict[str, Any] = {
        "context_length": config["max_position_embeddings"], "vocab_size": 131,
        "embedding_length": config["hidden_size"], "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"], "attention.head_count": heads,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "attention.kv_lora_rank": rank, **lengths, "rope.dimension_count": turned,
        "rope.freq_base": float(config["rope_theta"]),
        "leading_dense_block_count": config["first_k_dense_replace"],
        "expert_count": config["n_routed_experts"],
        "expert_used_count": config["num_experts_per_tok"],
        "expert_shared_count": config["n_shared_experts"],
        "expert_feed_forward_length": config["moe_intermediate_size"],
        "expert_weights_scale": config["routed_scaling_factor"], "expert_weights_norm": False,
        "expert_gating_func": 1, "expert_group_count": config["n_group"],
        "expert_group_used_count": config["topk_group"],
    }  # fmt: skip
    if config["q_lora_rank"]:
        metadata["attention.q_lora_rank"] = config["q_lora_rank"]
    if scaling := config["rope_scaling"]:
        metadata |= {
            "rope.scaling.type": "yarn", "rope.scaling.factor": float(scaling["factor"]),
            "rope.scaling.original_context_length": scaling["original_max_position_embeddings"],
            "rope.scaling.yarn_log_multiplier": 0.1 * scaling["mscale_all_dim"],
        }  # fmt: skip
    tensors = _tensors(variant, heads, plain, apart)
    kept = [name for name in tensors if any(part in name for part in quantised)]
    return write_gguf(path, "deepseek2", {**metadata, **keys}, tensors, quantised=kept)


def _tensors(variant: str, heads: int, plain: int, apart: bool) -> dict[str, FloatArray]:
    plainly: dict[str, FloatArray] = {}
    stacks: dict[str, dict[int, FloatArray]] = {}
    for name, values in drawn(variant).items():
        if one := _ONE.fullmatch(name):
            number = one[1].rpartition(".")[2]
            stacks.setdefault(f"blk.{number}.ffn_{one[3]}_exps.weight", {})[int(one[2])] = values
        else:
            plainly[name] = values
    found = llama_cpp_names(plainly, OF_LAYER)
    found |= {
        name: np.stack([each[expert] for expert in sorted(each)]) for name, each in stacks.items()
    }
    for name in [each for each in found if apart and "attn_kv_b" in each]:
        both = found.pop(name).reshape(heads, -1, config_of(variant)["kv_lora_rank"])
        found[name.replace("kv_b", "k_b")] = both[:, :plain].swapaxes(1, 2)
        found[name.replace("kv_b", "v_b")] = both[:, plain:]
    return found


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_has_the_bits_of_its_directory(variant: str, apart: bool, tmp_path: Path) -> None:
    folder = directory(tmp_path / "folder", variant)
    path = gguf_file(tmp_path / "model.gguf", variant, apart=apart)
    got, want = logits(loaded(path)), logits(loaded(folder))
    ours, theirs = read_header(path).config, read_header(folder).config
    assert ours.latent == theirs.latent
    assert ours.mixture == theirs.mixture
    if theirs.attention_scale is None:
        assert np.array_equal(got, want)
    else:  # a tenth of a number and ten times it, as float32
        assert ours.score_scale == pytest.approx(theirs.score_scale, rel=1e-6)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("apart", [True, False])
def test_quantised_matrices_of_heads_are_run(apart: bool, tmp_path: Path) -> None:
    """Those of V as they are; those of K too, but where they lie the other way round: these are
    float32, exactly what they were."""
    path = gguf_file(
        tmp_path / "m.gguf", "deepseek2", apart=apart, quantised=("_exps", "attn_v_b", "attn_kv_b"),
    )  # fmt: skip
    packed = loaded(path, weights=None)
    formats = {name: matrix.format for name, matrix in packed.weights.matrices.items()}
    assert formats["blk.1.ffn_up_exps.weight"] == formats["blk.1.attn_v_b.weight"] == "W8"
    assert formats["blk.1.attn_k_b.weight"] == "F32"
    row = np.empty(24, np.float32)
    for i in (0, 63, 64, 3 * 64 - 1):
        native.expand_row(default_isa(), packed.weights.matrices["blk.1.attn_k_b.weight"], i, row)
        assert np.array_equal(row, packed.exact["blk.1.attn_k_b.weight"][i])
    runner = make_runner(packed, POOL, kv_dtype="f32")
    want = all_logits(runner, TOKENS)
    assert np.array_equal(all_logits(runner, TOKENS, cuts=(7, 50)), want)


@pytest.mark.parametrize(
    ("kv_dtype", "nbytes", "less"),
    [("bf16", 2 * 576, 8.89), ("f32", 4 * 576, 8.89), ("int8", 576 + 512 + 8, 4.79),
     ("k=f32,v=bf16", 4 * 576 + 2 * 512, 4.92)],
)  # fmt: skip
def test_pages_keep_one_row_of_a_token_and_its_latent_part_again_where_they_must(
    kv_dtype: str, nbytes: int, less: float, tmp_path: Path
) -> None:
    """V2-Lite's sizes: 576 values a token and layer, or 576 + 512, of 16 heads with 192 and 128."""
    config = replace(
        read_header(directory(tmp_path, "deepseek2")).config,
        heads=16, head_dim=192, rotary_dim=64, rope_factors=(),
        latent=Latent(
            kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128
        ),
    )  # fmt: skip
    program = build_program(config)
    formats = page_formats(program, EngineConfig.parse({"kv_dtype": kv_dtype}))
    kept = kv_bytes_per_token(program, formats)
    assert kept == config.num_layers * nbytes
    expanded = expanded_bytes(config.num_layers, 16, (192, 128), formats)
    assert expanded / kept == pytest.approx(less, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scoring_func": "sigmoid"}, 'scoring_func is "sigmoid": only "softmax" is supported'),
        ({"norm_topk_prob": True}, "norm_topk_prob is true: only false is supported"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2: only 1 is supported"),
        ({"topk_method": "noaux_tc"}, 'topk_method is "noaux_tc": expected "greedy" or'),
        ({"attention_bias": True}, "attention_bias is true: only false is supported"),
        ({"kv_lora_rank": 0}, "kv_lora_rank is 0: expected a whole number from 1"),
        ({"kv_lora_rank": 1024}, "a latent row of 1040 values: at most 576 are run"),
        ({"qk_nope_head_dim": 23}, "qk_nope_head_dim is 23: expected an even number"),
        ({"v_head_dim": 24}, "a part of 24 values of latent attention: multiples of 16 are run"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1: expected as many as"),
        ({"quantization_config": {"quant_method": "fp8"}}, "the weights are quantised by fp8"),
    ],
)  # fmt: skip
def test_fields_that_mean_another_model_are_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = directory(tmp_path, "deepseek2")
    changed(folder, "config.json", **changes)
    with pytest.raises((ModelFormatError, UnsupportedModelError)) as refused:
        read_header(folder).program()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"expert_gating_func": 2}, "expert_gating_func' is 2: only 0 or 1 is supported"),
        ({"expert_weights_norm": True}, "expert_weights_norm' is True: only False is supported"),
        ({"attention.key_length": 99}, "attention.key_length': expected 80, as other keys say"),
        ({"attention.key_length_mla": 16}, "attention.key_length_mla': expected more than 16"),
        ({"attention.value_length_mla": 0}, "attention.value_length_mla': expected more than 0"),
        ({"attention.head_count_kv": 2}, "attention.head_count_kv': expected 1 or 3, found 2"),
        ({"attention.kv_lora_rank": 1024, "attention.key_length": 1040,
          "attention.value_length": 1024}, "a latent row of 1040 values: at most 576 are run"),
    ],
)  # fmt: skip
def test_keys_that_mean_another_model_are_refused_by_name(
    keys: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = gguf_file(tmp_path / "model.gguf", "deepseek2", apart=True, **keys)
    with pytest.raises((ModelFormatError, UnsupportedModelError)) as refused:
        read_header(path).program()
    assert said in str(refused.value)
