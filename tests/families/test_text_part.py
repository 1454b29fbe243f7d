"""A model with images whose text part is run: what is left out, and what its files may not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.forms import drawn, loaded, logits
from tests.weights.hf.written import changed, write_json, write_weights

VARIANT = "gemma3-with-images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    golden = golden_of(VARIANT)
    return write_directory(tmp_path, VARIANT, golden["shapes"], golden["seed"])


def text_changed(folder: Path, **changes: Any) -> None:
    changed(folder, "config.json", text_config={**config_of(VARIANT)["text_config"], **changes})


def test_what_is_left_out_and_what_is_assumed_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = read_header(folder)
    assert caplog.messages == [
        f"{folder}: only the text model is run: the tensors of vision_tower and "
        "multi_modal_projector are left out",
        f"{folder}: the embedding's rows from 131 to 135 are no tokens: no answer has them",
    ]
    assert not any("vision" in info.name for info in header.tensors.values())
    assumed = {"num_attention_heads 8", "num_key_value_heads 4", "max_position_embeddings 131072"}
    assert assumed < set(header.config.assumed)
    assert header.tokenizer_spec().end_ids == (1, 106)


def test_the_text_part_alone_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """As Gemma3ForCausalLM it must say more of itself, and has shorter names."""
    alone = tmp_path / "alone"
    alone.mkdir()
    more = {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 131072}
    text = {**config_of(VARIANT)["text_config"], **more}
    write_json(alone / "config.json", {"architectures": ["Gemma3ForCausalLM"], **text})
    (alone / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    prefix = "language_model."
    tensors = {
        name.removeprefix(prefix): values
        for name, values in drawn(VARIANT).items()
        if name.startswith(prefix)
    }
    write_weights(alone, tensors, dtype="BF16")
    assert np.array_equal(logits(loaded(alone)), logits(loaded(folder)))


def test_a_text_part_of_another_kind_is_refused(folder: Path) -> None:
    text_changed(folder, model_type="gemma2")
    with pytest.raises(UnsupportedModelError) as refused:
        read_header(folder)
    assert str(refused.value).endswith(
        'config.json: text_config.model_type is "gemma2": only "gemma3_text" is supported there'
    )


def test_the_text_part_of_mistral_3_may_be_ministral_3(tmp_path: Path) -> None:
    variant = "ministral3-with-images"
    golden = golden_of(variant)
    folder = write_directory(tmp_path, variant, golden["shapes"], golden["seed"])
    config = read_header(folder).config
    assert (config.architecture, config.position_original) == ("mistral3", 16)
    changed(folder, "config.json", text_config={
        **config_of(variant)["text_config"], "model_type": "mistral4",
    })  # fmt: skip
    said = r'model_type is "mistral4": only "mistral" or "ministral3" is supported there'
    with pytest.raises(UnsupportedModelError, match=said):
        read_header(folder)


def test_or_mistral_with_a_head_of_its_own(tmp_path: Path) -> None:
    """Mistral Small 3.1 says nothing of its head; the text part may be silent of its kind."""
    variant = "mistral-with-images"
    golden = golden_of(variant)
    folder = write_directory(tmp_path, variant, golden["shapes"], golden["seed"])
    said = logits(loaded(folder))
    silent = {**config_of(variant)["text_config"], "model_type": ...}
    text = {name: each for name, each in silent.items() if each is not ...}
    changed(folder, "config.json", tie_word_embeddings=..., text_config=text)
    config = read_header(folder).config
    assert (config.architecture, config.tied_head, config.window) == ("llama", False, 0)
    assert np.array_equal(logits(loaded(folder)), said)


def test_tensors_of_a_part_that_is_not_known_are_refused(folder: Path) -> None:
    write_weights(folder, {**drawn(VARIANT), "audio_tower.w": np.ones(2, np.float32)})
    with pytest.raises(
        UnsupportedModelError, match=r"'audio_tower.w' .* has no place in the 7 lay"
    ):
        read_header(folder).program()


def test_fields_of_the_text_part_are_named_with_their_way(folder: Path) -> None:
    for changes, said in (
        ({"sliding_window": "wide"}, r'text_config.sliding_window is "wide": expected a whole num'),
        ({"vocab_size": 0}, r"config.json: text_config.vocab_size is 0: expected a whole number"),
    ):
        text_changed(folder, **changes)
        with pytest.raises(ModelFormatError, match=said):
            read_header(folder)
    text_changed(folder, swing=1)
    with pytest.raises(UnsupportedModelError, match=r"text_config.swing is 1: Octavo does not kn"):
        read_header(folder).program()
    text_changed(folder, tie_word_embeddings=False)
    changed(folder, "config.json", tie_word_embeddings=True)
    with pytest.raises(ModelFormatError, match="is true, in text_config it is not: one is wrong"):
        read_header(folder)
    found = json.loads((folder / "config.json").read_bytes())
    odds: list[Any] = [..., 3, []]
    for odd in odds:
        write_json(folder / "config.json", found)
        changed(folder, "config.json", text_config=odd)
        with pytest.raises(ModelFormatError, match=r"text_config is .*: expected an object"):
            read_header(folder)
