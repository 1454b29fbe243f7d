"""BLOOM's context, which may be longer than the model was trained for, and is said to be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM
from octavo.errors import PromptTooLongError
from tests.cli.result import Octavo
from tests.families.directories import golden_of, write_directory

TOKENS = [int(t) for t in np.random.default_rng(8).integers(0, 131, 600)]


@pytest.fixture
def bloom(tmp_path: Path) -> Path:
    """Trained for 256 tokens."""
    golden = golden_of("bloom")
    return write_directory(tmp_path / "bloom", "bloom", golden["shapes"], golden["seed"])


def load(path: Path, **options: Any) -> LLM:
    return LLM(path, kv_memory="16M", threads=1, **options)


def test_a_context_beyond_training_is_allowed_and_said(
    bloom: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        usual, longer = load(bloom), load(bloom, context=640)
    assert (usual.info.context, longer.info.context) == (256, 640)
    assert caplog.messages == [
        "the context is 640 tokens, and the model was trained for 256: ALiBi goes on beyond them, "
        "how well is the model's own"
    ]
    got = longer.logits(TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got[:256], usual.logits(TOKENS[:256]))
    chunked = load(bloom, context=640, max_batch_tokens=100).logits(TOKENS)
    assert np.array_equal(got, chunked)


def test_a_prompt_that_is_too_long_is_told_of_a_larger_context(bloom: Path) -> None:
    with pytest.raises(PromptTooLongError, match="shorten it or load with a larger context"):
        load(bloom).generate([TOKENS])


def test_a_plan_says_what_the_model_was_trained_for(bloom: Path, octavo: Octavo) -> None:
    result = octavo("plan", str(bloom), "--context", "640")
    assert "at 640 tokens, where the model was trained for 256\n" in result.out
    found = octavo("plan", str(bloom), "--context", "640", "--memory", "1GiB", "--json").json
    assert (found["model_context"], found["context_that_fits"]) == (256, 640)
    assert "trained" not in octavo("plan", str(bloom)).out
