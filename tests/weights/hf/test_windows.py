"""Windows that a config.json names where transformers reads them, and where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ModelFormatError
from octavo.model.config import ModelConfig, all_but_every
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.directories import config_of

FULL, WINDOWED = "full_attention", "sliding_attention"


def read(variant: str, *without: str, **changes: Any) -> ModelConfig:
    """A variant's config without some of its fields, and with others."""
    kept = {name: value for name, value in config_of(variant).items() if name not in without}
    return model_config(Fields("config.json", {**kept, **changes}))


def check_refused(wrong: str, variant: str, *without: str, **changes: Any) -> None:
    with pytest.raises(ModelFormatError, match=f"^config.json: {wrong}: expected "):
        read(variant, *without, **changes)


@pytest.mark.parametrize("variant", ["llama", "olmo2", "gpt2", "starcoder", "falcon", "granite"])
def test_classes_without_windows_refuse_one_that_would_hide_tokens(variant: str) -> None:
    """transformers computes them in full, whatever the field says."""
    check_refused("sliding_window is 24", variant, sliding_window=24)
    check_refused("sliding_window is 24", variant, sliding_window=24, use_sliding_window=True)
    for idle in (
        {"sliding_window": None},
        {"sliding_window": 4096},
        {"sliding_window": 24, "use_sliding_window": False},
    ):
        found = read(variant, **idle)
        assert (found.window, found.windowed, found.unsupported) == (0, (), "")


@pytest.mark.parametrize("variant", ["mistral-windowed", "starcoder2", "phi3"])
def test_classes_that_have_it_in_all_layers_refuse_other_layers(variant: str) -> None:
    assert read(variant, sliding_window=24).windowed == (True,) * 3
    all_listed = read(variant, sliding_window=24, layer_types=[WINDOWED] * 3)
    assert all_listed.windowed == (True,) * 3
    for types in ([FULL] * 3, [WINDOWED, FULL, WINDOWED]):
        check_refused("layer_types is .*", variant, sliding_window=24, layer_types=types)
    check_refused(
        "use_sliding_window is false", variant, sliding_window=24, use_sliding_window=False
    )
    for idle in ({"layer_types": [FULL] * 3}, {"use_sliding_window": False}):
        assert read(variant, sliding_window=None, **idle).windowed == ()
        assert read(variant, sliding_window=4096, **idle).windowed == ()


def test_a_pattern_counts_without_layer_types_and_where_transformers_reads_it() -> None:
    without = ("layer_types", "_sliding_window_pattern")
    silent = read("gemma3", *without)
    assert silent.windowed == all_but_every(6, 7)
    assert "sliding_window_pattern 6" in silent.assumed
    assert read("gemma3", *without, sliding_window_pattern=2).windowed == all_but_every(2, 7)
    both = {"sliding_window_pattern": 2, "_sliding_window_pattern": 2}
    assert read("gemma3", *without, **both).windowed == all_but_every(2, 7)
    check_refused("_sliding_window_pattern is 3", "gemma3", "layer_types")
    check_refused("_sliding_window_pattern is 3", "gemma3", "layer_types", sliding_window_pattern=2)
    assert read("gemma3", sliding_window_pattern=2).windowed == all_but_every(3, 7)  # as listed


def test_gemma_2_and_olmo_3_have_their_own_pattern_and_no_other() -> None:
    assert read("gemma2-new", "layer_types").windowed == all_but_every(2, 4)
    check_refused("sliding_window_pattern is 3", "gemma2", sliding_window_pattern=3)
    assert read("olmo3-new").windowed == all_but_every(4, 4)
    assert read("olmo3-new", sliding_window_pattern=4).windowed == all_but_every(4, 4)
    check_refused("sliding_window_pattern is 2", "olmo3-new", sliding_window_pattern=2)
    check_refused("_sliding_window_pattern is 2", "olmo3-new", _sliding_window_pattern=2)


def test_windowed_layers_of_olmo_3_turn_by_a_base_that_transformers_reads() -> None:
    """It takes 500000 for them, unless rope_parameters have one of theirs."""
    check_refused("rope_theta is 20000.0", "olmo3-new", "rope_parameters", rope_theta=20000.0)
    bare = {FULL: {"rope_type": "default"}, WINDOWED: {"rope_type": "default"}}
    check_refused("rope_theta is 20000.0", "olmo3-new", rope_parameters=bare, rope_theta=20000.0)
    assert read("olmo3-new", rope_parameters=bare).local_rope_base == 5e5
    full = {"rope_theta": 20000.0, "layer_types": [FULL] * 4}
    assert read("olmo3-new", "rope_parameters", **full).rope_base == 20000.0
