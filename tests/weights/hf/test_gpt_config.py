"""What config.json says of GPT-2, StarCoder, StarCoder2 and Falcon: names, defaults, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ModelFormatError
from octavo.model.config import ModelConfig
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.directories import config_of


def read(variant: str, **changes: Any) -> ModelConfig:
    """A change to `...` takes the field away."""
    fields = {**config_of(variant), **changes}
    return model_config(
        Fields("config.json", {name: each for name, each in fields.items() if each is not ...})
    )


def test_gpt2_names_its_sizes_in_its_own_way() -> None:
    found = read("gpt2")
    assert (found.architecture, found.num_layers, found.hidden_size) == ("gpt2", 3, 96)
    assert (found.heads, found.kv_heads, found.head_dim, found.ffn_size) == (4, 4, 24, 384)
    assert (found.context, found.norm_eps, found.activation) == (256, 1e-5, "gelu_tanh")
    assert (found.qkv_bias, found.output_bias, found.ffn_bias, found.tied_head) == (True,) * 4
    assert (found.assumed, found.unsupported) == (("tie_word_embeddings true",), "")
    assert read("gpt2", n_inner=160).ffn_size == 160


@pytest.mark.parametrize(
    ("name", "kind"), [("gelu", "gelu"), ("gelu_fast", "gelu_tanh"), ("relu", "relu")]
)
def test_each_activation_is_the_one_that_transformers_takes(name: str, kind: str) -> None:
    assert read("gpt2", activation_function=name).activation == kind


def test_multi_query_says_how_many_heads_share_k_and_v() -> None:
    assert [read("starcoder", multi_query=each).kv_heads for each in (True, False, ...)] == [
        1,
        24,
        1,
    ]
    assert read("falcon").kv_heads == 1  # whatever num_kv_heads says
    assert read("falcon-by-head").kv_heads == 3
    assert read("falcon-by-group").kv_heads == 2  # whatever multi_query says
    assert read("falcon-by-group", num_kv_heads=...).kv_heads == 6


def test_by_how_many_norms_falcon_reads_its_rows() -> None:
    variants = ("falcon", "falcon-by-group", "falcon-one-norm", "falcon-by-head", "falcon-in-turn")
    assert [read(variant).parallel_norms for variant in variants] == [1, 2, 1, 1, 0]
    assert read("falcon-by-group", parallel_attn=False).parallel_norms == 2
    for variant, norms, said in (
        ("falcon", 2, "1, as new_decoder_architecture is not true"),
        ("falcon-by-group", 3, "1 or 2"),
    ):
        with pytest.raises(ModelFormatError) as refused:
            read(variant, num_ln_in_parallel_attn=norms)
        whole = f"config.json: num_ln_in_parallel_attn is {norms}: expected {said}"
        assert str(refused.value) == whole


def test_what_a_falcon_file_does_not_say() -> None:
    found = read("falcon")
    assert (found.context, found.rope_base, found.ffn_size) == (2048, 10000.0, 384)
    assert (found.activation, found.qkv_bias, found.unsupported) == ("gelu", False, "")
    assert set(found.assumed) == {
        "max_position_embeddings 2048", "rope_theta 10000", "activation gelu",
        "tie_word_embeddings true",
    }  # fmt: skip


def test_starcoder2_has_windows_and_biases_as_it_says() -> None:
    found, bare = read("starcoder2"), read("starcoder2-no-bias")
    assert (found.window, found.windowed, found.qkv_bias) == (24, (True,) * 3, True)
    assert (bare.window, bare.qkv_bias, bare.output_bias, bare.ffn_bias) == (0, *(False,) * 3)
    assert read("starcoder2", use_bias=...).ffn_bias
    assert found.activation == "gelu_tanh"  # its activation_function is read by nobody


UNSUPPORTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("gpt2", {"activation_function": "swish"}, 'activation_function is "swish": only '
                   "gelu_new or gelu_pytorch_tanh or gelu_fast or gelu or gelu_python or relu is "
                   "supported"),
    "scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True},
                        "scale_attn_by_inverse_layer_idx is true: only false is supported"),
    "not scaled": ("starcoder", {"scale_attn_weights": False},
                   "scale_attn_weights is false: only true is supported"),
    "norms": ("starcoder2", {"norm_type": "rms_norm"},
              'norm_type is "rms_norm": only "layer_norm" is supported'),
    "other MLPs": ("starcoder2", {"mlp_type": "gated"},
                   'mlp_type is "gated": only "default" is supported'),
    "residuals": ("falcon", {"apply_residual_connection_post_layernorm": True},
                  "apply_residual_connection_post_layernorm is true: only false is supported"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_a_model_that_is_not_run_says_by_which_field(what: str) -> None:
    variant, changes, said = UNSUPPORTED[what]
    assert read(variant, **changes).unsupported == f"config.json: {said}"


def test_a_size_that_cannot_be_is_named_as_the_file_has_it() -> None:
    for changes, said in (
        ({"n_embd": ...}, "n_embd is missing: expected a whole number from 1"),
        ({"n_head": 5}, "n_head is 5: expected a divisor of n_embd, 96"),
        ({"n_layer": 2**40}, "n_layer is 1099511627776: expected at most 4096"),
    ):
        with pytest.raises(ModelFormatError) as refused:
            read("gpt2", **changes)
        assert str(refused.value) == f"config.json: {said}"
    with pytest.raises(ModelFormatError, match="num_kv_heads is 4: expected a divisor of the 6 nu"):
        read("falcon-by-group", num_kv_heads=4)
