"""What a config.json means by a rotary embedding of which it does not say all."""

from __future__ import annotations

import pytest

from octavo.errors import ModelFormatError
from octavo.weights.hf.config import model_config
from octavo.weights.hf.json_fields import Fields
from tests.families.directories import config_of

ORIGINAL = "original_max_position_embeddings"


def test_phi3_was_trained_for_4096_where_the_file_does_not_say() -> None:
    config = config_of("phi3-longrope")
    said = model_config(Fields("config.json", config))
    assert said.original_context == 28
    assert not any(ORIGINAL in each for each in said.assumed)
    del config[ORIGINAL]
    silent = model_config(Fields("config.json", config))
    assert silent.original_context == 4096
    assert f"{ORIGINAL} 4096" in silent.assumed
    for inside in (4096, 28):  # which transformers does not read there
        config["rope_scaling"][ORIGINAL] = inside
        if inside == 4096:
            assert model_config(Fields("config.json", config)).original_context == 4096
            continue
        with pytest.raises(
            ModelFormatError, match=rf"rope_scaling.{ORIGINAL} is 28, .* means 4096: one of them"
        ):
            model_config(Fields("config.json", config))


def test_nothing_is_assumed_of_an_original_context_that_no_scaling_asks_for() -> None:
    config = config_of("phi3")
    config.pop(ORIGINAL, None)
    assert not any(ORIGINAL in each for each in model_config(Fields("c", config)).assumed)


@pytest.mark.parametrize("form", ["old", "new"])
def test_of_parameters_by_type_of_layer_the_original_context_stands_within(form: str) -> None:
    """transformers passes over one beside them, and takes the context itself."""
    config = config_of("olmo3-new")
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 500000.0}
    if form == "old":
        del config["rope_parameters"]
        config["rope_scaling"] = scaled
    else:
        config["rope_parameters"]["full_attention"] = scaled
    config[ORIGINAL] = 32
    with pytest.raises(ModelFormatError, match=f"{ORIGINAL} is 32: expected it within"):
        model_config(Fields("config.json", config))
    scaled[ORIGINAL] = 32
    assert model_config(Fields("config.json", config)).rope_factors
    scaled["rope_type"] = "default"
    del scaled["factor"], scaled[ORIGINAL]
    assert model_config(Fields("config.json", config)).rope_factors == ()
