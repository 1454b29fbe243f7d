"""Granite 4: which models of its class are dense, and which layers of those turn."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.directories import config_of


def read(**changes: Any) -> ModelConfig:
    return model_config(Fields("config.json", {**config_of("granite-hybrid"), **changes}))


def test_a_dense_one_is_a_granite_of_the_shared_size() -> None:
    found = read()
    assert (found.architecture, found.unsupported, found.ffn_size) == ("granite", "", 160)
    assert found.windowed == found.without_rope == ()
    assert read(layer_types=["full_attention"] * 3) == found


def test_no_layer_turns_unless_the_config_says_rope() -> None:
    for said in ("nope", None):
        assert read(position_embedding_type=said).without_rope == (True,) * 3
    with pytest.raises(ModelFormatError, match='type is "alibi": expected "rope" or "nope"'):
        read(position_embedding_type="alibi")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_local_experts": 4}, "num_local_experts is 4: of this class models without experts "
         "are run"),
        ({"num_local_experts": None}, "num_local_experts is 8: of this class models without "
         "experts are run"),
        ({"layer_types": ["attention", "mamba", "attention"]}, 'layer_types has "mamba": Octavo '
         "keeps no recurrent state yet"),
        ({"layer_types": ["linear_attention"] * 3}, 'layer_types has "linear_attention": '
         "Octavo keeps no recurrent state yet"),
        ({"layer_types": None}, "layer_types is missing, so all layers are Mamba's: Octavo keeps "
         "no recurrent state yet"),
    ],
)  # fmt: skip
def test_experts_and_mamba_are_refused_by_the_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        read(**changes)
    assert str(refused.value) == f"config.json: {said}"
