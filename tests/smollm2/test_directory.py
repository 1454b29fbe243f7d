"""The real model written out as a directory, against its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from octavo import LLM, SamplingParams
from tests.weights.hf.written import directory_of

PROMPTS = ["The capital of France is", "def add(a, b):", "Once upon a time", "1, 2, 3, 4,"]
GREEDY = SamplingParams(temperature=0, max_tokens=32)


def test_a_directory_answers_like_the_file_it_was_made_of(
    smollm2_path: Path, tmp_path: Path
) -> None:
    """Rotated pairs stand elsewhere in it, so sums of attention differ in their last bits."""
    options: dict[str, Any] = {"threads": 2, "context": 256, "kv_dtype": "f32"}
    of_file = LLM(smollm2_path, weights="f32", **options)
    of_directory = LLM(directory_of(smollm2_path, tmp_path / "smollm2"), **options)
    assert of_directory.info.tensor_types["F32"][1] == of_directory.info.weight_bytes
    tokens = of_file.tokenizer.encode("It was a bright cold day in April, and the clocks were")
    assert of_directory.tokenizer.encode(of_file.tokenizer.decode(tokens)) == tokens
    ours, theirs = of_directory.logits(tokens), of_file.logits(tokens)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    answers = [
        [o.outputs[0].token_ids for o in (*llm.generate(PROMPTS, GREEDY), llm.chat(chat, GREEDY))]
        for llm in (of_file, of_directory)
    ]
    assert answers[0] == answers[1]
