"""Which metadata key is which number of a model, and what a file that is silent means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError
from octavo.model.registry import build_program
from tests.weights.read_keys import SILENT, read


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
