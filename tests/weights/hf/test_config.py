"""config.json to ModelConfig: two forms give one config, and what silence means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from octavo.errors import ModelFormatError
from octavo.model.config import ModelConfig, all_but_every
from octavo.model.registry import build_program
from octavo.program.ops import Rope
from tests.weights.hf.read_config import GEMMA3, LLAMA, QWEN2, SCALED, changed, read
from tests.weights.hf.written import config_json

MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize(
    "config", [LLAMA, replace(LLAMA, rope_scale=4.0, tied_head=True), QWEN2, GEMMA3, SCALED],
    ids=["llama", "llama, scaled", "qwen2", "gemma3", "gemma3, scaled"],
)  # fmt: skip
def test_both_forms_give_the_config_that_was_written(config: ModelConfig, form: Any) -> None:
    found = read(config_json(config, form=form))
    assert replace(found, assumed=()) == config
    assert set(found.assumed) <= {"use_sliding_window false"}


def test_layer_types_win_over_a_pattern_whatever_they_are() -> None:
    full, windowed = "full_attention", "sliding_attention"
    config = config_json(GEMMA3, form="new")
    for types in ([full] * 7, [windowed] * 7, [full] * 2 + [windowed] * 4 + [full]):
        found = read({**config, "layer_types": types})
        assert [found.is_full(i) for i in range(7)] == [each == full for each in types]
        assert (found.window, found.unsupported) == (24 if windowed in types else 0, "")
    for types in ([full] * 6, ["chunked_attention"] * 7):
        with pytest.raises(ModelFormatError, match="expected full_attention or sliding_attention "
                           "for each of 7 layers"):  # fmt: skip
            read({**config, "layer_types": types})


def test_what_the_file_does_not_say_is_the_familys_and_noted() -> None:
    bare = changed(
        GEMMA3, rope_theta=..., rope_local_base_freq=..., sliding_window_pattern=...,
        query_pre_attn_scalar=..., rms_norm_eps=..., tie_word_embeddings=..., head_dim=256,
    )  # fmt: skip
    found = read(bare)
    assert (found.windowed, found.rope_base, found.local_rope_base) == (
        all_but_every(6, 7), 1e6, 1e4
    )  # fmt: skip
    assert (found.norm_eps, found.tied_head, found.unsupported) == (1e-6, True, "")
    assert sorted(found.assumed) == [
        "query_pre_attn_scalar 256", "rms_norm_eps 1e-06", "rope_local_base_freq 10000",
        "rope_theta 1e+06", "sliding_window_pattern 6", "tie_word_embeddings true",
    ]  # fmt: skip
    old = changed(LLAMA, rope_theta=..., num_key_value_heads=..., head_dim=...)
    assert read(old).kv_heads == LLAMA.heads
    assert (read(old).head_dim, read(old).rope_base) == (24, 10000.0)
    assert read(old).assumed == ("rope_theta 10000",)


def test_llama_3_slows_long_waves_and_not_short_ones() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip
    found = read(changed(LLAMA, rope_scaling=scaling))
    waves = [128 * 10000 ** (-2 * i / 32) / (2 * math.pi) for i in range(16)]
    assert (found.rope_factors[0], found.rope_factors[-1]) == (1, 8)
    for wave, factor in zip(waves, found.rope_factors, strict=True):
        smooth = (wave - 1) / 3
        want = 1 if wave > 4 else 8 if wave < 1 else 1 / ((1 - smooth) / 8 + smooth)
        assert factor == pytest.approx(want, rel=1e-12)
    new = {**config_json(LLAMA), "rope_parameters": {**scaling, "rope_theta": 10000.0}}
    assert read(new).rope_factors == found.rope_factors


def test_dynamic_scaling_runs_unscaled_up_to_the_trained_context() -> None:
    scaling = {"type": "dynamic", "factor": 2.0}
    why = "its dynamic RoPE scaling beyond them is not supported"
    unscaled = replace(LLAMA, why_no_longer=why)
    assert read(changed(LLAMA, rope_scaling=scaling)) == unscaled
    longer = {**scaling, "original_max_position_embeddings": 512}
    assert read(changed(LLAMA, rope_scaling=longer)) == replace(unscaled, context=512)


def test_yarn_is_right_up_to_its_factor_times_the_original_context() -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    found = read(changed(LLAMA, rope_scaling=scaling))
    assert (LLAMA.context, found.context, found.unsupported) == (1024, 4096, "")
    assert found.rope_amplitude == pytest.approx(1 + 0.1 * math.log(4))


def test_the_older_name_and_place_of_longrope_are_read() -> None:
    """Phi-3's, whose original context stands beside the scaling and goes before the one in it."""
    lists = {"short_factor": [1.0] * 16, "long_factor": [*range(2, 18)]}
    beside = {"original_max_position_embeddings": 256}
    found = read(changed(LLAMA, rope_scaling={"type": "su", **lists}, **beside))
    assert (found.rope_factors, found.long_rope_factors[-1]) == ((1.0,) * 16, 17.0)
    assert found.original_context == 256
    assert found.rope_amplitude == pytest.approx(math.sqrt(1 + math.log(4) / math.log(256)))
    assert read(changed(LLAMA, **beside)) == replace(LLAMA, assumed=())


def test_a_window_that_hides_nothing_is_none() -> None:
    assert not read(changed(LLAMA, **MISTRAL, sliding_window=None)).unsupported
    assert not read(changed(LLAMA, **MISTRAL, sliding_window=1024)).unsupported
    assert not read(changed(LLAMA, **MISTRAL)).unsupported  # 4096 of 1024
    idle = {"sliding_window": 64, "use_sliding_window": False, "max_window_layers": 1}
    assert not read(changed(QWEN2, **idle)).unsupported
    assert not read(changed(QWEN2, **idle, layer_types=["full_attention"] * 2)).unsupported


def test_a_window_of_all_layers_is_one() -> None:
    windowed = ["sliding_attention"] * 2
    in_qwen2 = {"sliding_window": 128, "use_sliding_window": True}
    for config, changes in (
        (LLAMA, {**MISTRAL, "sliding_window": 128}),
        (LLAMA, {**MISTRAL, "sliding_window": 128, "layer_types": windowed}),
        (QWEN2, {**in_qwen2, "max_window_layers": 0}),
    ):
        found = read(changed(config, **changes))
        assert (found.unsupported, found.window) == ("", 128)
        assert not any(map(found.is_full, range(2)))
        assert {spec.window for spec in build_program(found).groups} == {128}
    assert read(changed(QWEN2, **in_qwen2)).window == 0  # from layer 28 on, by its family


def test_windows_of_qwen_begin_at_a_layer_or_are_listed() -> None:
    config = replace(QWEN2, num_layers=4)
    in_use = {"sliding_window": 64, "use_sliding_window": True}
    later = read(changed(config, **in_use, max_window_layers=3))
    assert (later.window, later.windowed) == (64, (False, False, False, True))
    types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    listed = read(changed(config, **in_use, max_window_layers=3, layer_types=types))
    assert listed.windowed == (True, False, False, True)
    assert {spec.window for spec in build_program(listed).groups} == {0, 64}
    with pytest.raises(ModelFormatError, match="expected full_attention everywhere, as no window"):
        read(changed(config, sliding_window=64, use_sliding_window=False, layer_types=types))


def smollm3(**changes: Any) -> ModelConfig:
    named = {"architectures": ["SmolLM3ForCausalLM"], "model_type": "smollm3"}
    return read(changed(replace(LLAMA, num_layers=5), **named, **changes))


def test_layers_of_smollm3_that_do_not_turn_are_listed_or_every_fourth() -> None:
    """In the list 1 means that a layer turns."""
    silent = smollm3()
    assert silent.without_rope == (False, False, False, True, False)
    assert "no_rope_layer_interval 4" in silent.assumed
    assert smollm3(no_rope_layer_interval=2).without_rope == (False, True, False, True, False)
    listed = smollm3(no_rope_layers=[0, 1, 1, 1, 0], no_rope_layer_interval=2)
    assert listed.without_rope == (True, False, False, False, True)
    assert not any("no_rope" in each for each in listed.assumed)
    assert smollm3(no_rope_layers=[1] * 5).without_rope == ()
    ropes = [op for op in build_program(listed).ops if isinstance(op, Rope)]
    assert len(ropes) == 2 * 3
    windows = {"use_sliding_window": True, "sliding_window": 64}
    assert smollm3(**windows).windowed == silent.without_rope
    for wrong in ([1] * 4, [2] * 5, "all"):
        with pytest.raises(ModelFormatError, match="expected 0 or 1 for each of 5 layers"):
            smollm3(no_rope_layers=wrong)


def phi3(**changes: Any) -> ModelConfig:
    named = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
    return read(changed(LLAMA, **named, **changes))


def test_windows_of_olmo_3_leave_every_fourth_layer_and_turn_unscaled() -> None:
    olmo2 = {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"}
    olmo3 = {"architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3"}
    scaled = {"num_hidden_layers": 5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    found = read(changed(LLAMA, **olmo2, **scaled))
    assert (found.windowed, found.rope_scale, found.local_rope_base) == ((), 4.0, None)
    found = read(changed(LLAMA, **olmo3, **scaled, rope_theta=..., rms_norm_eps=...))
    assert (found.window, found.windowed) == (4096, (True, True, True, False, True))
    assert (found.rope_base, found.local_rope_base, found.rope_scale) == (5e5, 5e5, 4.0)
    assert sorted(found.assumed) == [
        "rms_norm_eps 1e-05", "rope_theta 500000", "sliding_window 4096", "sliding_window_pattern 4"
    ]  # fmt: skip


def test_fewer_dims_of_a_head_may_turn_in_phi3() -> None:
    assert (phi3().architecture, phi3().rotary_dim, phi3().unsupported) == ("phi3", 32, "")
    assert phi3(partial_rotary_factor=0.75).rotary_dim == 24
    inside = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    found = phi3(rope_theta=..., rope_scaling=..., rope_parameters=inside)
    assert (found.rotary_dim, found.unsupported) == (24, "")
    assert phi3(original_max_position_embeddings=4096, full_attn_mod=1).unsupported == ""
    for factor in (0, 1.5, 0.1):
        said = f"partial_rotary_factor is {factor}: expected a part of the 32 of a head"
        with pytest.raises(ModelFormatError, match=said):
            phi3(partial_rotary_factor=factor)
    with pytest.raises(ModelFormatError, match=r"0.5, .*factor is 0.75: one of them is wrong"):
        phi3(rope_theta=..., rope_scaling=..., rope_parameters=inside, partial_rotary_factor=0.5)
    llama = read(changed(LLAMA, partial_rotary_factor=0.75))
    assert llama.unsupported == "config.json: partial_rotary_factor is 0.75: only 1 is supported"


def test_what_a_phi3_file_does_not_say() -> None:
    found = phi3(num_key_value_heads=..., rms_norm_eps=..., sliding_window=...)
    assert (found.kv_heads, found.norm_eps, found.window) == (LLAMA.heads, 1e-5, 0)


def test_scales_and_caps_are_the_numbers_that_they_mean() -> None:
    assert read(changed(GEMMA3, query_pre_attn_scalar=168)).attention_scale == 168**-0.5
    gemma2 = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
              "rope_local_base_freq": ...}  # fmt: skip
    ours = ("attention_scale", "attention_softcap", "logit_softcap")

    def of_gemma2(**changes: Any) -> tuple[float | None, ...]:
        fields: dict[str, Any] = {"sliding_window_pattern": ..., "attn_logit_softcapping": ...,
                                  "final_logit_softcapping": ..., **changes}  # fmt: skip
        found = read(changed(GEMMA3, **gemma2, **fields))
        assert (found.unsupported, found.windowed) == ("", all_but_every(2, 7))
        return tuple(getattr(found, name) for name in ours)

    assert of_gemma2() == (None, 50.0, 30.0)
    assert of_gemma2(query_pre_attn_scalar=...) == (256**-0.5, 50.0, 30.0)
    assert of_gemma2(attn_logit_softcapping=None) == (None, 0.0, 30.0)
    assert of_gemma2(final_logit_softcapping=None, attn_logit_softcapping=2) == (None, 2.0, 0.0)
    granite = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
    scaled = {"embedding_multiplier": 12, "residual_multiplier": 0.22, "logits_scaling": 8.0,
              "attention_multiplier": 0.015625}  # fmt: skip
    assert read(changed(LLAMA, **granite, **scaled)) == replace(
        LLAMA, architecture="granite", embedding_scale=12.0, residual_scale=0.22,
        logit_scale=0.125, attention_scale=0.015625,
    )  # fmt: skip
    silent = read(changed(LLAMA, **granite))
    assert silent == replace(
        LLAMA, architecture="granite", attention_scale=1.0,
        assumed=tuple(f"{name} 1" for name in ("embedding_multiplier", "residual_multiplier",
                                               "attention_multiplier", "logits_scaling")),
    )  # fmt: skip
    for name in scaled:
        with pytest.raises(ModelFormatError, match=f"{name} is 0: expected a number above 0"):
            read(changed(LLAMA, **granite, **{name: 0}))


def test_queries_of_ministral_3_are_scaled_by_what_stands_beside_yarn() -> None:
    named = {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3",
             "rope_theta": ...}  # fmt: skip
    yarn = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "mscale": 1.0,
            "mscale_all_dim": 1.0, "original_max_position_embeddings": 32,
            "max_position_embeddings": 512, "llama_4_scaling_beta": 0.1}  # fmt: skip
    found = read(changed(LLAMA, **named, rope_scaling=..., rope_parameters=yarn))
    assert (found.architecture, found.unsupported) == ("mistral3", "")
    assert (found.position_beta, found.position_original) == (0.1, 32)
    assert found.rope_amplitude == 1.0
    for parameters, said in (
        (..., "rope_parameters is missing: expected an object with llama_4_scaling_beta"),
        ({**yarn, "llama_4_scaling_beta": 0}, "scaling_beta is 0: expected a number above 0"),
        ({**yarn, "original_max_position_embeddings": None}, "embeddings is missing: expected a"),
    ):
        with pytest.raises(ModelFormatError, match=said):
            read(changed(LLAMA, **named, rope_scaling=..., rope_parameters=parameters))
