"""Which numbers a model may have: corrupt ones are refused before anything is built from them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from octavo.config import EngineConfig
from octavo.engine.runner import kv_layout
from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.registry import build_program
from octavo.program.ops import Attend
from tests.tiny import TINY


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 0, "num_layers is 0: expected at least 1"),
        ("num_layers", 2**32 - 1, "num_layers is 4294967295: expected at most 4096"),
        ("head_dim", 2**31, "head_dim is 2147483648: expected at most"),
        ("rope_base", 0.0, "rope_base is 0.0: expected a number above 0"),
        ("rope_base", math.nan, "rope_base is nan"),
        ("rope_scale", 0.0, "rope_scale is 0.0"),
        ("norm_eps", -1.0, "norm_eps is -1.0: expected a number from 0"),
        ("attention_scale", 1e-60, "attention_scale is 1e-60: expected a number from 1e-06, below"),
        ("logit_scale", 2e6, "logit_scale is 2000000.0: expected a number from 1e-06, below"),
        ("attention_softcap", 1e-4, "attention_softcap is 0.0001: expected a number from 0.001"),
        ("logit_softcap", 2e6, "logit_softcap is 2000000.0: expected a number from 0.001"),
        ("position_original", 0, "position_original is 0: expected at least 1"),
        ("position_original", 2**31, "position_original is 2147483648: expected at most"),
        ("norm_eps", 1.0, "norm_eps is 1.0: expected a number below 1"),
        ("norm_eps", math.inf, "norm_eps is inf"),
        ("rope_factors", (1.0,) * 15 + (0.0,), "a rope factor is not above 0"),
        ("rope_factors", (1.0,), "1 rope factors: expected 16"),
    ],
)
def test_a_number_no_model_has_is_refused_by_name(field: str, value: object, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        replace(TINY, **{field: value})  # type: ignore[arg-type]


def test_heads_that_the_kernels_do_not_run_are_a_model_that_octavo_does_not_run() -> None:
    program = build_program(replace(TINY, head_dim=578, rotary_dim=20))
    with pytest.raises(UnsupportedModelError, match="k_dim: expected a multiple of 16 from 16 to"):
        kv_layout(program, 0, EngineConfig())


@pytest.mark.parametrize("head_dim", [2, 16, 20, 100, 120, 128, 256])
def test_heads_are_filled_up_to_what_the_kernels_run_and_scaled_as_they_are(head_dim: int) -> None:
    program = build_program(replace(TINY, head_dim=head_dim, rotary_dim=2))
    layout = kv_layout(program, 0, EngineConfig())
    assert layout.k_dim == layout.v_dim in range(head_dim, head_dim + 16)
    scales = {op.scale for op in program.ops if isinstance(op, Attend)}
    assert scales == {head_dim**-0.5}


def test_k_and_v_have_each_its_own_dtype() -> None:
    config = EngineConfig.parse({"kv_dtype": "k=f32,v=bf16"})
    layout = kv_layout(build_program(TINY), 0, config)
    assert (layout.k_format, layout.v_format) == ("f32", "bf16")
