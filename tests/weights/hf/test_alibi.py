"""What config.json says of BLOOM, MPT, OPT and the first Falcons: names, slopes, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ModelFormatError
from octavo.model.config import ModelConfig
from octavo.program.slopes import Slopes, alibi_slopes
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.directories import config_of


def read(variant: str, **changes: Any) -> ModelConfig:
    """A change to `...` takes the field away."""
    fields = {**config_of(variant), **changes}
    return model_config(
        Fields("config.json", {name: each for name, each in fields.items() if each is not ...})
    )


def mpt(**changes: Any) -> ModelConfig:
    return read("mpt", attn_config={**config_of("mpt")["attn_config"], **changes})


def test_bloom_has_slopes_and_fields_of_two_names() -> None:
    found, old = read("bloom"), read("bloom-old")
    assert (found.slopes, old.slopes) == (Slopes(alibi_slopes(6)), Slopes(alibi_slopes(4)))
    assert (found.hidden_size, found.heads, found.num_layers, found.ffn_size) == (96, 6, 3, 384)
    assert (old.hidden_size, old.heads, old.num_layers, old.context) == (96, 4, 3, 2048)
    assert (found.activation, found.context, found.qkv_bias) == ("gelu_tanh", 256, True)
    assert read("bloom", n_embed=96).hidden_size == 96
    assert not found.unsupported
    assert not old.unsupported
    with pytest.raises(ModelFormatError, match=r"n_embed is 64, .*hidden_size is 96: one is"):
        read("bloom", n_embed=64)


def test_mpt_says_how_steep_its_slopes_are_and_what_it_clips() -> None:
    found, clipped = read("mpt"), read("mpt-clipped")
    assert found.slopes == Slopes(alibi_slopes(6))
    assert mpt(alibi_bias_max=16).slopes == Slopes(alibi_slopes(6, 16))
    assert read("mpt", attn_config=...).slopes == found.slopes
    assert (found.qkv_limit, found.attention_scale) == (0.0, None)
    assert (clipped.qkv_limit, clipped.attention_scale) == (0.75, 0.4)
    assert (found.ffn_size, read("mpt", expansion_ratio=3).ffn_size) == (384, 288)
    assert (found.activation, found.qkv_bias, found.unsupported) == ("gelu", False, "")
    assert read("mpt", architectures=["MPTForCausalLM"]) == found


def test_what_no_float32_clips_at_is_refused() -> None:
    with pytest.raises(ModelFormatError, match=r"qkv_limit is 1e\+39: expected a number from"):
        mpt(clip_qkv=1e39)


def test_a_falcon_without_a_rotary_embedding_has_rounded_slopes() -> None:
    assert read("falcon-rw").slopes == Slopes(alibi_slopes(6), rounded=True)
    assert read("falcon-rw", rope_theta=1e4).unsupported == ""
    assert read("falcon").slopes is None


def test_opt_norms_first_or_last_and_widens_rows_of_tokens() -> None:
    found, last, bare = read("opt"), read("opt-last-norms"), read("opt-no-bias")
    assert (found.norms_last, found.embedding_size, found.norm_weights) == (False, 0, True)
    assert (last.norms_last, last.embedding_size) == (True, 48)
    assert (bare.qkv_bias, bare.ffn_bias, bare.norm_weights) == (False, False, False)
    assert (found.qkv_bias, found.activation, found.slopes) == (True, "relu", None)
    assert read("opt", word_embed_proj_dim=...).embedding_size == 0


def test_slopes_alone_let_a_context_be_longer() -> None:
    assert [read(each).longest(1000) for each in ("bloom", "mpt", "falcon-rw")] == [1000] * 3
    assert [read(each).longest(100) for each in ("bloom", "mpt", "falcon-rw")] == [256] * 3
    assert read("bloom").longest(None) == 256
    assert read("opt").longest(1000) == 256
    assert read("opt").why_no_longer
    assert not read("bloom").why_no_longer


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("bloom", {"hidden_size": 2**20, "n_head": 2**18}),
        ("mpt", {"d_model": 2**20, "n_heads": 2**18}),
    ],
)
def test_no_slopes_are_made_for_heads_beyond_any_models(
    variant: str, changes: dict[str, int]
) -> None:
    with pytest.raises(ModelFormatError, match="heads is 262144: expected at most 65536"):
        read(variant, **changes)


UNSUPPORTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "residuals": ("bloom", {"apply_residual_connection_post_layernorm": True},
                  "apply_residual_connection_post_layernorm is true: only false is supported"),
    "biases": ("mpt", {"no_bias": False}, "no_bias is false: only true is supported"),
    "norms": ("mpt", {"norm_type": "rmsnorm"},
              'norm_type is "rmsnorm": only "low_precision_layernorm" or "layernorm" is supported'),
    "logits": ("mpt", {"logit_scale": 0.5}, "logit_scale is 0.5: only null is supported"),
    "a norm": ("opt", {"_remove_final_layer_norm": True},
               "_remove_final_layer_norm is true: only false is supported"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_a_model_that_is_not_run_says_by_which_field(what: str) -> None:
    variant, changes, said = UNSUPPORTED[what]
    assert read(variant, **changes).unsupported == f"config.json: {said}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alibi": False}, "alibi is false: only true is supported"),
        ({"prefix_lm": True}, "prefix_lm is true: only false is supported"),
        ({"qk_ln": True}, "qk_ln is true: only false is supported"),
        ({"attn_uses_sequence_id": True}, "attn_uses_sequence_id is true: only false is supported"),
        (
            {"attn_type": "multiquery_attention"},
            'attn_type is "multiquery_attention": only "multihead_attention" is supported',
        ),
    ],
)
def test_attention_that_is_not_run_says_by_which_field(changes: dict[str, Any], said: str) -> None:
    assert mpt(**changes).unsupported == f"config.json: attn_config.{said}"


def test_a_field_of_attention_that_nobody_knows_is_refused() -> None:
    assert "attn_config.rope is true: Octavo does not know this field" in mpt(rope=True).unsupported


@pytest.mark.parametrize("name", ["alibi_bias_max", "clip_qkv", "softmax_scale"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), "8"])
def test_a_number_that_cannot_be_is_named(name: str, value: object) -> None:
    with pytest.raises(ModelFormatError, match=f"attn_config.{name} is .*: expected a number"):
        mpt(**{name: value})
