"""Which metadata key is which number of a model, and what a file that is silent means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.model.registry import build_program
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_config import model_config
from octavo.weights.gguf_header import MetadataValue, TensorInfo

LEAST: dict[str, MetadataValue] = {  # what no file may leave out
    "block_count": 3, "embedding_length": 64, "feed_forward_length": 96, "context_length": 512,
    "attention.head_count": 4, "attention.layer_norm_rms_epsilon": 1e-6,
}  # fmt: skip
SILENT = ModelConfig(
    architecture="llama", num_layers=3, hidden_size=64, ffn_size=96, heads=4, kv_heads=4,
    head_dim=16, vocab_size=300, context=512, norm_eps=1e-6, rope_base=10000.0, rotary_dim=16,
    rope_style="interleaved", tied_head=True, qkv_bias=False,
)  # fmt: skip


def read(
    *more_tensors: str,
    arch: str = "llama",
    factors: tuple[float, ...] = (),
    more_factors: Mapping[str, tuple[float, ...]] | None = None,
    elsewhere: Mapping[str, MetadataValue] | None = None,
    **keys: Any,  # MetadataValue
) -> ModelConfig:
    """The config of a file with the least keys and these; `__` stands for a dot. `elsewhere` are
    keys outside the architecture's namespace."""
    named = LEAST | {name.replace("__", "."): value for name, value in keys.items()}
    metadata = {f"{arch}.{name}": value for name, value in named.items()} | dict(elsewhere or {})
    tensors = {
        name: TensorInfo(name, (300, 64), GGMLType.F32, 0, 300 * 64 * 4)
        for name in ("token_embd.weight", *more_tensors)
    }
    named_factors = dict(more_factors or {})
    if factors:
        named_factors["rope_freqs.weight"] = factors
    return model_config({"general.architecture": arch, **metadata}, tensors, named_factors)


def test_a_silent_file_means_what_llama_cpp_takes_it_for() -> None:
    assert read() == SILENT


def test_each_key_is_its_number() -> None:
    assert read(attention__head_count_kv=2) == replace(SILENT, kv_heads=2)
    longer = read(attention__key_length=32, attention__value_length=32)
    assert longer == replace(SILENT, head_dim=32, rotary_dim=32)
    assert read(rope__dimension_count=8) == replace(SILENT, rotary_dim=8)
    assert read(rope__freq_base=500000.0) == replace(SILENT, rope_base=500000.0)


def test_linear_scaling_divides_positions_and_no_scaling_does_not() -> None:
    """A factor alone is linear; beside the type "none" it is not used."""
    factor: dict[str, Any] = {"rope__scaling__factor": 4.0}
    assert read(**factor) == replace(SILENT, rope_scale=4.0)
    assert read(rope__scaling__type="linear", **factor) == replace(SILENT, rope_scale=4.0)
    assert read(rope__scaling__type="none", **factor) == SILENT


def test_tensors_tell_of_a_head_biases_and_rope_factors() -> None:
    assert read("output.weight") == replace(SILENT, tied_head=False)
    assert read("blk.0.attn_q.bias") == replace(SILENT, qkv_bias=True)
    factors = (1.0,) * 4 + (8.0,) * 4
    assert read(factors=factors) == replace(SILENT, rope_factors=factors)


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
    assert found.unturned == ((False,) * 3 + (True,)) * 2 + (False,)
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
        UnsupportedModelError, match="architecture 'mamba' is not supported: falcon, gemma2"
    ):
        read(arch="mamba", **norm)
    layer_norm = {"bloom." + k: v for k, v in LEAST.items() if "rms" not in k}
    tensors = {"token_embd.weight": TensorInfo("token_embd.weight", (9, 64), GGMLType.F32, 0, 2304)}
    found = model_config({"general.architecture": "bloom", **layer_norm}, tensors)
    assert (found.num_layers, found.norm_eps) == (3, 0.0)


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


def test_a_factor_under_its_old_name_is_linear_unless_the_new_one_is_there() -> None:
    """It used to be left unread: such files answered nonsense."""
    assert read(rope__scale_linear=4.0) == replace(SILENT, rope_scale=4.0)
    both = read(rope__scale_linear=4.0, rope__scaling__factor=2.0)
    assert both == replace(SILENT, rope_scale=2.0)
    assert read(rope__scaling__factor=0.0) == SILENT  # llama.cpp writes it for none


def test_yarn_slows_what_turns_seldom_and_grows_the_amplitude() -> None:
    """The pairs of a head of 16 turn 64 / 2 pi / 10 ** (i / 2) times in the original context."""
    yarn: dict[str, Any] = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0,
                            "rope__scaling__original_context_length": 64}  # fmt: skip
    found = read(**yarn)
    ramp = [min(i / 3, 1) for i in range(8)]  # from 0 to 2.02, rounded outwards
    assert found.rope_factors == pytest.approx([1 / (part / 4 + 1 - part) for part in ramp])
    assert found.rope_amplitude == pytest.approx(1 + 0.1 * math.log(4))
    assert (found.context, found.rope_scale) == (512, 1.0)
    assert read(**yarn, rope__scaling__attn_factor=0.5).rope_amplitude == pytest.approx(
        found.rope_amplitude / 2
    )
    assert read(**yarn, rope__scaling__yarn_log_multiplier=1.0).rope_amplitude == 1
    betas = read(**yarn, rope__scaling__yarn_beta_fast=2.0, rope__scaling__yarn_beta_slow=0.1)
    assert betas.rope_factors[:2] == (1, 1)
    longer = read(**{**yarn, "rope__scaling__original_context_length": 512})
    assert longer.context == 2048


def test_yarn_that_names_its_own_amplitude_is_as_if_it_did_not() -> None:
    """As files of OLMo 3 do. llama.cpp passes over another, which the model may have meant."""
    yarn: dict[str, Any] = {"rope__scaling__type": "yarn", "rope__scaling__factor": 8.0}
    own = float(np.float32(1.2079441541679836))
    assert read(**yarn, rope__scaling__yarn_attn_factor=own) == read(**yarn)
    other = read(**yarn, rope__scaling__yarn_attn_factor=0.9).unsupported
    assert other == "llama.rope.scaling.yarn_attn_factor is 0.9: only 1.20794 is supported here"


def test_of_two_lists_of_factors_the_context_chooses_one_for_all_lengths() -> None:
    short, long = (1.0,) * 8, tuple(float(2 + i) for i in range(8))
    tensors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    keys: dict[str, Any] = {"rope__scaling__original_context_length": 64,
                            "rope__scaling__attn_factor": 1.2}  # fmt: skip
    found = read(more_factors=tensors, **keys)
    assert (found.rope_factors, found.rope_amplitude) == (short, 1.2)
    assert [found.is_long(context) for context in (64, 65)] == [False, True]
    assert found.for_context(64).rope_factors == short
    assert found.for_context(65).rope_factors == long
    assert read(more_factors=tensors, **keys, rope__scaling__type="longrope") == found
    with pytest.raises(ModelFormatError, match=r"'rope_factors_short.weight' is missing"):
        read(more_factors={"rope_factors_long.weight": long})
    with pytest.raises(ModelFormatError, match=r"'rope_factors_long.weight' is missing, which lo"):
        read(rope__scaling__type="longrope")


@pytest.mark.parametrize(
    ("key", "value"),
    [("factor", -1.0), ("original_context_length", -3), ("yarn_beta_fast", 0.0),
     ("yarn_beta_slow", float("nan")), ("yarn_log_multiplier", -1.0)],
)  # fmt: skip
def test_yarn_of_impossible_numbers_is_refused_by_key(key: str, value: Any) -> None:
    keys = {"type": "yarn", "factor": 2.0, key: value}
    with pytest.raises(ModelFormatError, match=f"'llama.rope.scaling.{key}': expected a number "):
        read(**{f"rope.scaling.{name}": value for name, value in keys.items()})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rope.scaling.original_context_length": 1.7e308}, "length': expected at most 4294967296"),
        ({"rope.freq_base": float("nan")}, "rope.freq_base is nan: expected more than 1 with yarn"),
        ({"rope.dimension_count": 2**40}, "dimension_count is 1099511627776: expected at most 655"),
    ],
)
def test_numbers_out_of_any_sense_are_refused_before_a_list_is_made(keys: Any, said: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        read(**{"rope.scaling.type": "yarn", "rope.scaling.factor": 2.0, **keys})


DIMS = "llama: value heads of another size than key heads"
SCALING = "llama.rope.scaling.type is '{}': none, linear, yarn and longrope are supported"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"attention__value_length": 8}, DIMS),
        ({"attention__value_length": 32}, DIMS),
        ({"rope__scaling__type": "dynamic"}, SCALING.format("dynamic")),
    ],
)
def test_sizes_and_scalings_that_are_not_supported_are_named(keys: Any, said: str) -> None:
    assert read(rope__scaling__original_context_length=128, **keys).unsupported == said


def test_one_number_for_all_layers_may_be_an_array_of_it() -> None:
    arrays: dict[str, Any] = {
        "attention__head_count": np.full(3, 4, np.uint32),
        "attention__head_count_kv": np.full(3, 2, np.int32),
        "feed_forward_length": np.full(3, 96, np.uint32),
    }
    assert read(**arrays) == replace(SILENT, kv_heads=2)
    differs = read(attention__head_count_kv=np.array([2, 4, 2], np.uint32))
    said = "'llama.attention.head_count_kv' differs from layer to layer: one value is supported"
    assert (differs.kv_heads, differs.unsupported) == (4, f"metadata {said}")


def test_a_number_may_be_written_as_the_other_kind() -> None:
    assert read(block_count=3.0, rope__freq_base=10000) == SILENT


def test_the_vocabulary_is_as_large_as_the_embedding_whatever_a_key_says() -> None:
    assert read(vocab_size=300) == read(vocab_size=299) == SILENT


@pytest.mark.parametrize(("tokens", "padding"), [(300, 0), (297, 3), (301, 0), (0, 0)])
def test_rows_beyond_the_tokens_are_padding(tokens: int, padding: int) -> None:
    """More tokens than rows is for whoever needs the tokenizer to refuse."""
    config = read(elsewhere={"tokenizer.ggml.tokens": [f"{i}" for i in range(tokens)]})
    assert config == replace(SILENT, padding=padding)
    program = build_program(config)
    assert (program.vocab_size, program.logits_width) == (300 - padding, 300)


WHOLE = "expected a whole number, found "


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("block_count", True, WHOLE + "True"),
        ("block_count", 3.5, WHOLE + r"3\.5"),
        ("block_count", np.array([3.0, 4.0]), WHOLE + "an array of 2 float64"),
        ("block_count", np.array([], np.uint32), WHOLE + "an array of 0 uint32"),
        ("block_count", np.array([True, True]), WHOLE + "an array of 2 bool"),
        ("rope.freq_base", "1", "expected a number, found '1'"),
        ("rope.freq_base", False, "expected a number, found False"),
        ("rope.scaling.type", 1, "expected a string, found 1"),
    ],
)
def test_a_value_of_another_type_is_named(key: str, value: Any, found: str) -> None:
    with pytest.raises(ModelFormatError, match=f"'llama.{key}': {found}"):
        read(**{key: value})
