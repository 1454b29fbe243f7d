"""What is written of a family's GGUF file is what its own directory has: fields and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octavo.convert.config_json import config_json, family_for
from octavo.convert.convert import weight_names, weight_values
from octavo.errors import UnsupportedModelError
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from octavo.weights.model_header import read_header
from octavo.weights.rope_scaling import llama3_factors
from tests.families.checkpoints import CONFIGS
from tests.families.forms import drawn
from tests.families.test_gguf import gguf_file

WRITTEN = [
    "mistral-windowed", "qwen2-windows", "mistral-head-24", "qwen2-head-12", "qwen3",
    "smollm3-interval", "gemma2",
    "gemma3-irregular", "gemma3-full-tied", "gemma3-old-linear", "granite", "olmo2",
    "llama-linear", "llama-tied-padded",
]  # fmt: skip


@pytest.mark.parametrize("variant", WRITTEN)
def test_weights_are_those_of_the_family_s_own_directory(variant: str, tmp_path: Path) -> None:
    header = read_header(gguf_file(tmp_path / "model.gguf", variant))
    config_json(header.config)  # raises if it reads as another config
    names = weight_names(header, header.program().weights())
    want = drawn(variant)
    assert {*names} == {*want}
    for name, values in zip(
        names, weight_values(header, names, header.config.kv_heads), strict=True
    ):
        if header.files.norm_offset == family_for(header.config).norm_offset:
            assert np.array_equal(values, want[name]), name
        else:  # 1 was added in float32, and taken away
            np.testing.assert_allclose(values, want[name], rtol=0, atol=2.0**-23, err_msg=name)


def test_what_no_field_says_is_refused_by_its_name() -> None:
    gemma = CONFIGS["gemma3"]
    with pytest.raises(
        UnsupportedModelError, match=r"its .* is nothing that a config\.json of Gemma2"
    ):
        config_json(replace(gemma, architecture="gemma2", qk_norm=True))
    with pytest.raises(UnsupportedModelError, match="'phi3' cannot be written"):
        config_json(replace(gemma, architecture="phi3"))


@pytest.mark.parametrize("architecture", ["gemma2", "gemma3"])
def test_gemma_has_a_window_even_where_no_layer_uses_it(architecture: str) -> None:
    """transformers makes its mask in any case, and fails on null."""
    config = replace(
        CONFIGS["gemma3"], architecture=architecture, window=0, windowed=(),
        local_rope_base=1e4 if architecture == "gemma3" else None,
    )  # fmt: skip
    assert config_json(config)["sliding_window"] == 4096


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_factors_of_llama_3_become_what_they_are_made_of(factor: float) -> None:
    plain = replace(
        CONFIGS["gemma3"], architecture="llama", window=0, windowed=(), local_rope_base=None,
        rope_style="interleaved",
    )  # fmt: skip
    exact = llama3_factors(1e6, 32, factor=factor, original=8192, low=1.0, high=4.0)
    stored = tuple(float(np.float32(each)) for each in exact)
    found = config_json(replace(plain, rope_factors=stored))
    assert model_config(Fields("config.json", found)).rope_factors == exact
    with pytest.raises(UnsupportedModelError, match=r"its rope_factors \(16 numbers\)"):
        config_json(replace(plain, rope_factors=(*stored[:-1], stored[-1] * 2)))


def test_windows_of_qwen_are_said_for_whoever_knows_no_layer_types() -> None:
    config = replace(
        CONFIGS["gemma3"], architecture="qwen2", qkv_bias=True, local_rope_base=None,
        windowed=(False,) * 3 + (True,) * 4,
    )  # fmt: skip
    found = config_json(config)
    del found["layer_types"]
    read = model_config(Fields("config.json", found))
    assert (read.window, read.windowed) == (config.window, config.windowed)
    turned = config_json(replace(config, windowed=config.windowed[::-1]))
    assert "max_window_layers" not in turned  # which cannot say it
