"""GPT-2 as people have it: names without a prefix, masks that were saved, a table of positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UsageError
from tests.families.directories import golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import drawn, loaded, logits
from tests.families.test_directories import load
from tests.weights.hf.written import write_weights


def directory(path: Path) -> Path:
    golden = golden_of("gpt2")
    return write_directory(path, "gpt2", golden["shapes"], golden["seed"])


def test_names_may_lack_their_prefix_and_masks_are_left_out(tmp_path: Path) -> None:
    """As in the checkpoints of 2019."""
    first, now = directory(tmp_path / "first"), directory(tmp_path / "now")
    tensors = {name.removeprefix("transformer."): each for name, each in drawn("gpt2").items()}
    for layer in range(3):
        tensors[f"h.{layer}.attn.bias"] = np.tri(256, dtype=np.float32)[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-10000, np.float32)[None]
    write_weights(first, tensors)
    assert np.array_equal(logits(loaded(first)), logits(loaded(now)))


def test_a_tensor_under_both_names_is_refused(tmp_path: Path) -> None:
    path, tensors = directory(tmp_path), drawn("gpt2")
    write_weights(path, {**tensors, "wpe.weight": tensors["transformer.wpe.weight"]})
    with pytest.raises(ModelFormatError) as refused:
        loaded(path)
    said = f"{path}: 'transformer.wpe.weight' and 'wpe.weight' are one tensor: take one away"
    assert str(refused.value) == said


def test_no_text_is_longer_than_the_table_of_positions(tmp_path: Path) -> None:
    llm = load(directory(tmp_path))
    assert len(llm.logits((TOKENS * 3)[:256])) == 256
    with pytest.raises(UsageError, match="257 tokens"):
        llm.logits((TOKENS * 3)[:257])


@pytest.mark.parametrize("asked", ["w8", "w4"])
def test_its_table_of_positions_stays_as_it_is(asked: Any, tmp_path: Path) -> None:
    """As llama.cpp leaves it, too."""
    model = loaded(directory(tmp_path), weights=asked)
    formats = {name: matrix.format for name, matrix in model.weights.matrices.items()}
    assert formats.pop("position_embd.weight") == "BF16"
    assert formats.pop("token_embd.weight") == "W8"
    assert {*formats.values()} == {"W8" if asked == "w8" else "W4S"}
    assert np.isfinite(logits(model)).all()
