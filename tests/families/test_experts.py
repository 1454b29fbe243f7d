"""Tiny models with experts in every form that files have: the same logits, and the same refusals.

What transformers says of the directories is in `test_directories`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.engine.runner import Runner
from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.kernels import default_isa, native
from octavo.weights.model_header import read_header
from tests.families.directories import VARIANTS, config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.expert_files import (
    ARCHITECTURES,
    PERMUTED,
    Form,
    architecture,
    fused,
    gguf_file,
    gguf_tensors,
)
from tests.families.forms import POOL, drawn, loaded, logits
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed, write_weights

WITH_EXPERTS = [each for each in VARIANTS if config_of(each)["model_type"] in ARCHITECTURES]
IN_FILES = [each for each in WITH_EXPERTS if each != "qwen3moe-windowed"]  # llama.cpp has none
ONE_BY_ONE = [each for each in WITH_EXPERTS if not each.startswith("granite")]


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


@pytest.mark.parametrize("variant", IN_FILES)
def test_files_have_the_logits_of_their_directory_whichever_way_experts_lie(
    variant: str, tmp_path: Path
) -> None:
    """The same bits where rows are in the same order, else sums of attention are not."""
    folder = directory(tmp_path / "folder", variant)
    want, config = logits(loaded(folder)), read_header(folder).config
    stacked = gguf_file(tmp_path / "stacked.gguf", variant)
    got = logits(loaded(stacked))
    others: list[Form] = ["gate and up", "one by one"]
    for form in others:
        other = gguf_file(tmp_path / "other.gguf", variant, experts=form)
        assert np.array_equal(logits(loaded(other)), got)
    if architecture(variant) in PERMUTED:
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    elif config.mixture is not None and config.mixture.renormalised == (
        architecture(variant) == "qwen3moe"
    ):  # what files mean, which have no key for it
        assert np.array_equal(got, want)
    assert read_header(stacked).config.windowed == config.windowed


@pytest.mark.parametrize("variant", ONE_BY_ONE)
def test_a_directory_with_gate_and_up_in_one_tensor_has_the_same_bits(
    variant: str, tmp_path: Path
) -> None:
    apart = directory(tmp_path / "apart", variant)
    want = logits(loaded(apart))
    write_weights(apart, fused(drawn(variant)), dtype="BF16")
    assert any("gate_up_exps" in name for name in read_header(apart).tensors)
    assert np.array_equal(logits(loaded(apart)), want)


def test_quantised_experts_are_packed_row_by_row_as_they_are(tmp_path: Path) -> None:
    forms: list[Form] = ["stacked", "gate and up", "one by one"]
    for form in forms:
        path = gguf_file(tmp_path / "model.gguf", "mixtral", experts=form, quantised=True)
        packed, unpacked = loaded(path, weights=None), loaded(path)
        for name, matrix in packed.weights.matrices.items():
            assert matrix.format == ("W8" if "_exps" in name else "F32")
            row = np.empty(matrix.cols, np.float32)
            for i in (0, 100, matrix.rows - 1):
                native.expand_row(default_isa(), matrix, min(i, matrix.rows - 1), row)
                assert np.array_equal(row, unpacked.exact[name][min(i, matrix.rows - 1)])
        chunks = all_logits(make_runner(packed, POOL, kv_dtype="f32"), TOKENS, cuts=(7, 50))
        assert np.array_equal(chunks, logits(packed))


@pytest.mark.parametrize("weights", ["w4", "w8", "bf16", "f32"])
def test_the_router_stays_float32_whatever_the_weights_are(weights: str, tmp_path: Path) -> None:
    model = loaded(directory(tmp_path, "qwen3moe"), weights=weights)
    formats = {name: matrix.format for name, matrix in model.weights.matrices.items()}
    routers = [name for name in formats if ".ffn_gate_inp." in name]
    assert len(routers) == 3
    assert {formats[name] for name in routers} == {"F32"}
    asked = {"w4": "W4S", "w8": "W8", "bf16": "BF16", "f32": "F32"}[weights]
    assert formats["blk.1.ffn_down_exps.weight"] == asked
    assert np.isfinite(logits(model)).all()


def test_a_tensor_of_experts_that_is_missing_or_of_another_shape_is_named(tmp_path: Path) -> None:
    name = "blk.1.ffn_up_exps.weight"
    wrong: list[tuple[FloatArray | None, str]] = [
        (None, f"tensor '{name}' is missing: expected shape (6, 64, 96)"),
        (np.zeros((5, 64, 96), np.float32), "expected shape (6, 64, 96), found (5, 64, 96)"),
        (np.zeros((6 * 64, 96), np.float32), "expected shape (6, 64, 96), found (384, 96)"),
    ]
    for values, said in wrong:
        path = gguf_file(tmp_path / "model.gguf", "mixtral", changed={name: values})
        assert said in refusal(path, ModelFormatError)
    one = {"blk.1.ffn_up.3.weight": None}
    path = gguf_file(tmp_path / "model.gguf", "mixtral", experts="one by one", changed=one)
    assert "tensor 'blk.1.ffn_up.3.weight' is missing: expected shape (64, 96)" in refusal(
        path, ModelFormatError
    )
    folder, tensors = directory(tmp_path / "folder", "qwen3moe"), drawn("qwen3moe")
    theirs = "model.layers.2.mlp.experts.7.down_proj.weight"
    write_weights(folder, {n: v for n, v in tensors.items() if n != theirs}, dtype="BF16")
    assert f"tensor '{theirs}' is missing: expected shape (96, 32)" in refusal(
        folder, ModelFormatError
    )


def test_an_expert_more_than_the_file_says_has_no_place(tmp_path: Path) -> None:
    folder = directory(tmp_path / "folder", "mixtral")
    changed(folder, "config.json", num_local_experts=5)
    said = refusal(folder, ModelFormatError, UnsupportedModelError)
    assert "'model.layers.0.block_sparse_moe.gate.weight'" in said or "experts.5.w1.weight" in said
    both = {f"blk.0.ffn_gate.{e}.weight": np.zeros((64, 96), np.float32) for e in range(6)}
    path = gguf_file(tmp_path / "both.gguf", "mixtral", changed=both)
    with pytest.raises(UnsupportedModelError, match="has no place in the 3 layers of a llama"):
        read_header(path).program()


def test_experts_of_a_layer_with_different_types_are_refused(tmp_path: Path) -> None:
    half = {"blk.0.ffn_down.2.weight": np.zeros((96, 64), np.float16)}
    path = gguf_file(tmp_path / "m.gguf", "mixtral", experts="one by one", changed=half)
    said = "is F16, 'blk.0.ffn_down.0.weight' is F32: experts of a layer are run if they have one"
    assert said in refusal(path, UnsupportedModelError)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_router_that_is_no_number_is_refused_when_it_is_loaded(
    bad: float, tmp_path: Path
) -> None:
    name = "blk.1.ffn_gate_inp.weight"
    router = gguf_tensors("olmoe")[name].copy()
    router[5, 17] = bad
    path = gguf_file(tmp_path / "model.gguf", "olmoe", changed={name: router})
    said = refusal(path, ModelFormatError)
    assert said.startswith(f"{path}: tensor '{name}' at offset ")
    assert said.endswith("chooses experts and has values that are not finite: get the file again")


def test_rows_that_each_meet_another_expert_have_the_bits_of_rows_alone(tmp_path: Path) -> None:
    """A token's expert is the one whose router row is the token's own; attention adds nothing, so
    no row knows of others."""
    variant, tokens = "mixtral-windowed", [3, 50, 77, 120]
    tensors = gguf_tensors(variant)
    changed = {n: np.zeros_like(v) for n, v in tensors.items() if ".attn_output." in n}
    rows = tensors["token_embd.weight"][tokens]
    rows = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + np.float32(1e-5))
    changed["blk.0.ffn_gate_inp.weight"] = rows * tensors["blk.0.ffn_norm.weight"]

    def runner(**more: FloatArray) -> Runner:
        path = gguf_file(tmp_path / "model.gguf", variant, changed={**changed, **more})
        return make_runner(loaded(path), POOL, kv_dtype="f32")

    together = all_logits(runner(), tokens)
    for i, token in enumerate(tokens):
        assert np.array_equal(all_logits(runner(), [token])[0], together[i])
        other = tensors["blk.0.ffn_down_exps.weight"].copy()
        other[i] *= 2
        differs = all_logits(runner(**{"blk.0.ffn_down_exps.weight": other}), tokens) != together
        assert [row for row in range(4) if differs[row].any()] == [i]


def test_rows_have_the_same_bits_whoever_is_in_their_step(tmp_path: Path) -> None:
    runner = make_runner(loaded(directory(tmp_path, "qwen3moe")), POOL, kv_dtype="f32")
    one_by_one = all_logits(runner, TOKENS, cuts=range(1, len(TOKENS)))
    assert np.array_equal(one_by_one, all_logits(runner, TOKENS))


def refusal(path: Path, *kinds: type[Exception]) -> str:
    with pytest.raises(kinds) as refused:
        loaded(path)
    return str(refused.value)


def read_changed(tmp_path: Path, variant: str, **changes: Any) -> str:
    """What is said of the directory whose config.json has these fields."""
    folder = directory(tmp_path / variant, variant)
    changed(folder, "config.json", **changes)
    return refusal(folder, ModelFormatError, UnsupportedModelError)


@pytest.mark.parametrize(
    ("variant", "changes", "said"),
    [
        ("mixtral", {"num_experts_per_tok": 0}, "num_experts_per_tok is 0: expected a whole number "
         "from 1 to num_local_experts, 6"),
        ("mixtral", {"num_experts_per_tok": 7}, "num_experts_per_tok is 7: expected a whole number "
         "from 1 to num_local_experts, 6"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts is 0: expected a whole number "
         "from 1 to 1024"),
        ("mixtral", {"intermediate_size": 80}, "intermediate_size is 80: experts are run whose "
         "sizes are multiples of 32"),
        ("mixtral", {"sliding_window": "wide"}, "sliding_window is \"wide\": expected a whole"),
        ("qwen3moe", {"moe_intermediate_size": 40}, "moe_intermediate_size is 40: experts are run "
         "whose sizes are multiples of 32"),
        ("qwen3moe", {"num_local_experts": 4}, "num_experts is 8, "),
        ("qwen3moe", {"mlp_only_layers": [3]}, "mlp_only_layers is [3]: expected a list of layers "
         "below 3"),
        ("qwen3moe", {"decoder_sparse_step": 0}, "decoder_sparse_step is 0: expected a whole "
         "number from 1"),
        ("qwen3moe", {"norm_topk_prob": 1}, "norm_topk_prob is 1: expected true or false"),
        ("olmoe", {"clip_qkv": -1}, "clip_qkv is -1: expected a number above 0, or null"),
        ("olmoe", {"sliding_window": 24}, "sliding_window is 24: expected null"),
        ("granitemoe", {"shared_intermediate_size": 64}, "shared_intermediate_size is 64: Octavo "
         "does not know this field"),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_are_refused_by_name(
    variant: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert f"config.json: {said}" in read_changed(tmp_path, variant, **changes)
