"""Tiny directories of each family against Hugging Face transformers, from files: needs no torch.

float32 weights and pages. Rows are computed in other orders than theirs, so they are near, not
equal: 2e-4 of a row's largest logit. Each way that Octavo computes them gives the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from tests.families.directories import VARIANTS, golden_of, write_directory
from tests.families.drawn import ANSWER, PROMPTS, TOKENS


def load(path: Path, **options: Any) -> LLM:
    more: dict[str, Any] = {"weights": "f32", "kv_dtype": "f32", "threads": 1, "block_size": 16}
    return LLM(path, context=256, kv_memory="16M", prefix_cache=False, **(more | options))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_and_answers_are_theirs_however_they_are_computed(
    variant: str, tmp_path: Path
) -> None:
    golden = golden_of(variant)
    path = write_directory(tmp_path, variant, golden["shapes"], golden["seed"])
    llm = load(path)
    got = llm.logits(TOKENS)
    for row, theirs in golden["rows"].items():
        want = np.array(theirs)
        error = np.abs(got[int(row)] - want).max()
        assert error <= 2e-4 * np.abs(want).max(), f"row {row}: off by {error:.2g}"
    greedy = SamplingParams(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    answers = [[*each.outputs[0].token_ids] for each in llm.generate(PROMPTS, greedy)]
    assert answers == golden["continuations"]
    for other in ({"max_batch_tokens": 7, "threads": 2}, {"max_batch_tokens": 1}, {"fuse": False}):
        assert np.array_equal(load(path, **other).logits(TOKENS), got), other


def test_three_shards_are_the_same_model(tmp_path: Path) -> None:
    golden = golden_of("llama")
    whole, parts = (
        write_directory(tmp_path / f"{n}", "llama", golden["shapes"], golden["seed"], shards=n)
        for n in (1, 3)
    )
    assert len([*parts.glob("*.safetensors")]) == 3
    assert np.array_equal(load(parts).logits(TOKENS), load(whole).logits(TOKENS))
