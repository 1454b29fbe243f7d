"""What keys of each family mean, and what its files mean by those that they leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.registry import build_program
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import TensorInfo
from tests.weights.read_keys import LEAST, SILENT, read


def test_qwen2_rotates_halves_of_a_head() -> None:
    assert read(arch="qwen2") == replace(SILENT, architecture="qwen2", rope_style="half")


def test_a_silent_gemma3_has_the_windows_of_its_family_and_says_what_was_assumed() -> None:
    silent = replace(
        SILENT, architecture="gemma3", rope_style="half", local_rope_base=1e4,
        assumed=(
            "rope.freq_base_swa 10000", "attention.sliding_window_pattern 6",
            "attention.scale 0.25",
        ),
    )  # fmt: skip
    assert read(arch="gemma3") == silent
    windowed = read(arch="gemma3", attention__sliding_window=128)
    assert windowed == replace(silent, window=128, windowed=(True, True, True))
    longer = read(arch="gemma3", attention__sliding_window=128, block_count=7)
    assert [longer.is_full(i) for i in range(7)] == [False] * 5 + [True, False]
    assert not read(arch="gemma3", attention__sliding_window=512).is_full(0)  # it turns as before
    unread = read(arch="gemma3", attention__sliding_window=0, rope__freq_base_swa=0.0)
    assert build_program(unread).groups == (KVSpec(4, 16, 16),)  # no layer has that base
    said = read(
        arch="gemma3", attention__sliding_window=128, rope__freq_base_swa=2e4,
        attention__sliding_window_pattern=2,
    )  # fmt: skip
    pattern = (True, False, True)
    told = {"window": 128, "windowed": pattern, "local_rope_base": 2e4}
    told["assumed"] = ("attention.scale 0.25",)
    assert said == replace(silent, **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "windowed"),
    [
        (0, (True, True, True)),
        (1, ()),
        (2, (True, False, True)),
        (np.array([True, False, False]), (True, False, False)),
        (np.array([True, True, True]), (True, True, True)),
        (np.array([False, False, False]), ()),
        (np.array([0, 1, 1], np.uint32), (False, True, True)),
    ],
)
def test_a_pattern_is_a_number_or_a_flag_for_each_layer(pattern: Any, windowed: Any) -> None:
    for arch in ("gemma3", "llama", "qwen3"):
        keys: dict[str, Any] = {"attention__sliding_window": 128}
        found = read(arch=arch, attention__sliding_window_pattern=pattern, **keys)
        assert (found.window, found.windowed) == (128 if windowed else 0, windowed)
        assert found.unsupported == ""


@pytest.mark.parametrize("pattern", [-1, 1.5, "all", np.array([True, False])])
def test_a_pattern_that_can_be_neither_is_refused(pattern: Any) -> None:
    said = "pattern': expected a whole number from 0, or a flag for each of 3 layers"
    with pytest.raises(ModelFormatError, match=said):
        read(
            arch="gemma3", attention__sliding_window=128, attention__sliding_window_pattern=pattern
        )


def test_a_window_without_a_pattern_is_of_all_layers_in_the_families_that_have_such() -> None:
    for arch, windowed in (("llama", (True,) * 3), ("phi3", (True,) * 3)):
        assert read(arch=arch, attention__sliding_window=511).windowed == windowed
        assert read(arch=arch, attention__sliding_window=512).windowed == ()
    for arch in ("qwen2", "qwen3", "smollm3"):
        found = read(arch=arch, attention__sliding_window=511)
        assert "is 511 in a context of 512: only full attention" in found.unsupported


def test_a_silent_gemma2_has_the_caps_and_windows_of_its_family_and_says_so() -> None:
    silent = read(arch="gemma2", context_length=8192)
    assert silent == replace(
        SILENT, architecture="gemma2", rope_style="half", context=8192, window=4096,
        windowed=(True, False, True), attention_softcap=50.0, logit_softcap=30.0,
        assumed=(
            "attention.sliding_window 4096", "attention.sliding_window_pattern 2",
            "attn_logit_softcapping 50", "final_logit_softcapping 30", "attention.scale 0.25",
        ),
    )  # fmt: skip
    caps: dict[str, Any] = {"attn_logit_softcapping": 0.0, "final_logit_softcapping": 2.5}
    found = read(arch="gemma2", attention__sliding_window=64, **caps)
    assert (found.attention_softcap, found.logit_softcap, found.window) == (0.0, 2.5, 64)
    assert found.assumed == ("attention.sliding_window_pattern 2", "attention.scale 0.25")


def test_scores_of_gemma_27b_are_scaled_by_hidden_size_over_heads() -> None:
    """32 here, in heads of 16; a key that says otherwise is refused."""
    for arch, layers in (("gemma2", 46), ("gemma3", 62)):
        of_27b: dict[str, Any] = {
            "arch": arch, "attention.head_count": 2, "block_count": layers,
            "attention__key_length": 16, "attention__value_length": 16,
        }  # fmt: skip
        found = read(**of_27b)
        assert found.attention_scale == found.score_scale == 32**-0.5
        assert "attention.scale 0.176777" in found.assumed
        said = read(**of_27b, attention__scale=float(np.float32(32**-0.5)))
        assert (said.unsupported, said.attention_scale) == ("", 32**-0.5)
        assert not any("scale" in each for each in said.assumed)
        other = read(**of_27b, attention__scale=0.25)
        assert "is 0.25: only 0.176777 is supported" in other.unsupported
        of_9b = read(**{**of_27b, "block_count": 42})
        assert (of_9b.attention_scale, of_9b.score_scale) == (None, 0.25)


def test_multipliers_of_granite_are_read_and_0_is_none() -> None:
    granite = replace(SILENT, architecture="granite")
    names = ("embedding_scale", "residual_scale", "logit_scale", "attention.scale")
    none: dict[str, Any] = dict.fromkeys(names, 0.0)
    assert read(arch="granite", **none) == granite
    assert read(arch="granite") == granite
    scales: dict[str, Any] = dict(zip(names, (12.0, 0.25, 8.0, 0.5), strict=True))
    assert read(arch="granite", **scales) == replace(
        granite, embedding_scale=12.0, residual_scale=0.25, logit_scale=0.125, attention_scale=0.5
    )
    with pytest.raises(ModelFormatError, match=r"residual_scale is -1\.0: expected a number ab"):
        read(arch="granite", residual_scale=-1.0)
    turns: dict[str, Any] = {"rope.scaling.finetuned": True}
    assert read(arch="granite", **turns) == granite
    ssm: dict[str, Any] = {"ssm.conv_kernel": 4, "ssm.group_count": 1, "ssm.inner_size": 192}
    assert read(arch="granite", **ssm) == granite  # of a dense model, whose class has other ones
    unturned: dict[str, Any] = {"rope.scaling.finetuned": False}
    refused = read(arch="granite", **unturned).unsupported
    assert refused.startswith("metadata 'granite.rope.scaling.finetuned' is False: only True is")


def test_queries_of_mistral3_are_scaled_by_their_position_if_the_file_says_so() -> None:
    mistral3 = replace(SILENT, architecture="mistral3", position_original=512)
    assert read(arch="mistral3") == mistral3
    beta: dict[str, Any] = {"attention.temperature_scale": 0.5}
    assert read(arch="mistral3", **beta) == replace(mistral3, position_beta=0.5)
    original: dict[str, Any] = {"rope.scaling.original_context_length": 64}
    found = read(arch="mistral3", **beta, **original)
    assert found == replace(mistral3, position_beta=0.5, position_original=64)
    assert "temperature_scale' is 0.5: Octavo does not know" in read(**beta).unsupported


def test_windows_of_olmo_3_leave_every_fourth_layer_and_turn_unscaled() -> None:
    scaled: dict[str, Any] = {"rope__scaling__factor": 4.0}
    silent = replace(SILENT, architecture="olmo2", rope_style="half", qk_norm=True, rope_scale=4.0)
    assert read(arch="olmo2", **scaled) == silent
    for window in (128, 512):
        assert read(arch="olmo2", attention__sliding_window=window, **scaled) == replace(
            silent, window=window, windowed=(True,) * 3, local_rope_base=1e4,
            assumed=("attention.sliding_window_pattern 4",),
        )  # fmt: skip
    longer = read(arch="olmo2", attention__sliding_window=128, block_count=5)
    assert longer.windowed == (True, True, True, False, True)
    own = read(arch="olmo2", attention__sliding_window=128, rope__freq_base_swa=2e4)
    assert (own.rope_base, own.local_rope_base, own.unsupported) == (1e4, 2e4, "")
    none = read(arch="olmo2", rope__freq_base_swa=2e4)
    assert (none.local_rope_base, none.unsupported) == (None, "")


def test_every_fourth_layer_of_smollm3_is_not_turned_which_no_key_says() -> None:
    found = read(arch="smollm3", block_count=9)
    assert found.without_rope == ((False,) * 3 + (True,)) * 2 + (False,)
    assert found.assumed == ("no_rope_layer_interval 4",)
    assert found.rope_style == "interleaved"


def test_heads_of_q_and_k_are_normed_in_qwen3() -> None:
    assert read(arch="qwen3") == replace(
        SILENT, architecture="qwen3", rope_style="half", qk_norm=True
    )


def test_an_architecture_of_other_numbers_is_not_supported_rather_than_broken() -> None:
    """It used to be told that a key of another architecture is missing."""
    norm: dict[str, Any] = {"attention.layer_norm_rms_epsilon": "none"}
    with pytest.raises(ModelFormatError, match="rms_epsilon': expected a number, found 'none'"):
        read(**norm)
    with pytest.raises(
        UnsupportedModelError, match="architecture 'gamma' is not supported: bloom, deepseek2"
    ):
        read(arch="gamma", **norm)
    said = "architecture 'mamba' is not supported: it has recurrent layers, and Octavo keeps no"
    with pytest.raises(UnsupportedModelError, match=f"^{said} recurrent state yet$"):
        read(arch="mamba", **norm)
    layer_norm = {"gptneox." + k: v for k, v in LEAST.items() if "rms" not in k}
    tensors = {"token_embd.weight": TensorInfo("token_embd.weight", (9, 64), GGMLType.F32, 0, 2304)}
    found = model_config({"general.architecture": "gptneox", **layer_norm}, tensors)
    assert (found.num_layers, found.norm_eps) == (3, 0.0)


def test_hybrid_granite_is_refused_by_what_it_has() -> None:
    kv_heads = np.array([0, 0, 2], np.int32)  # of Mamba layers none
    config = read(arch="granitehybrid", attention__head_count_kv=kv_heads)
    with pytest.raises(UnsupportedModelError) as refused:
        build_program(config)
    assert str(refused.value) == (
        "architecture 'granitehybrid' is not supported: it has recurrent layers, and Octavo "
        "keeps no recurrent state yet; files of dense Granite 4 models say 'granite'"
    )


def test_layer_norms_have_an_epsilon_of_their_own() -> None:
    """llama.cpp writes both kinds when it saves a model."""
    eps: dict[str, Any] = {"attention__layer_norm_epsilon": 1e-5}
    for arch in ("gpt2", "starcoder", "starcoder2", "falcon"):
        found = read(arch=arch, **eps)
        assert (found.norm_eps, found.unsupported) == (1e-5, "")
        with pytest.raises(ModelFormatError, match=f"'{arch}.attention.layer_norm_epsilon': exp"):
            read(arch=arch)


def test_what_files_of_layer_norm_models_leave_out() -> None:
    eps: dict[str, Any] = {"attention__layer_norm_epsilon": 1e-5}
    two_norms = "blk.0.attn_norm_2.weight"
    falcon = read(arch="falcon", **eps), read(two_norms, arch="falcon", **eps)
    assert [found.parallel_norms for found in falcon] == [1, 2]
    assert read("blk.0.attn_qkv.bias", arch="gpt2", **eps).qkv_bias
    assert read(arch="gpt2", **eps).assumed == ("activation gelu_tanh",)
    silent = read(arch="starcoder2", context_length=16384, **eps)
    assert (silent.window, silent.windowed) == (4096, (True,) * 3)
    assert silent.assumed == ("attention.sliding_window 4096", "activation gelu_tanh")
    assert read(arch="starcoder2", **eps).window == 0  # the context is shorter
    assert read(
        arch="starcoder2", context_length=16384, attention__sliding_window=0, **eps
    ).assumed == ("activation gelu_tanh",)
