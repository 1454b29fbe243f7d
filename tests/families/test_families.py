"""Tiny models of each family against Hugging Face transformers, from a file: needs no torch.

float32 weights and pages. Rows are computed in other orders than theirs, so they are near, not
equal: 2e-4 of a row's largest logit. Each way that Octavo computes them gives the same bits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.kernels import native
from tests.engine.tiny_engine import add, run, tiny_engine
from tests.families.checkpoints import CONFIGS, PROMPTS, TOKENS, model
from tests.tiny import all_logits, make_runner

_GOLDEN: dict[str, Any] = json.loads(
    Path(__file__).with_name("golden.json").read_text(encoding="ascii")
)["models"]
POOL = native.ThreadPool(2)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_theirs_whole_in_chunks_and_token_by_token(name: str) -> None:
    tiny = model(CONFIGS[name], POOL)
    runner = make_runner(tiny, POOL, kv_dtype="f32", num_blocks=8)
    got = all_logits(runner, TOKENS)
    for row, theirs in _GOLDEN[name]["rows"].items():
        want = np.array(theirs)
        assert np.abs(got[int(row)] - want).max() <= 2e-4 * np.abs(want).max(), f"row {row}"
    for cuts in (range(7, 90, 7), range(1, 90)):
        assert np.array_equal(all_logits(runner, TOKENS, cuts), got)
    unfused = make_runner(tiny, POOL, kv_dtype="f32", num_blocks=8, fuse=False)
    assert np.array_equal(all_logits(unfused, TOKENS), got)
    assert runner.op_names.count("QKV") == CONFIGS[name].num_layers


@pytest.mark.parametrize("window", [23, 24, 600])
def test_a_window_as_long_as_the_rows_hides_nothing_whatever_the_context_is(window: int) -> None:
    """Its layers turn by their own base even if no context can pass it."""
    config = replace(CONFIGS["gemma3"], context=24)

    def logits(window: int, context: int) -> FloatArray:
        tiny = model(replace(config, window=window, context=context), POOL)
        return all_logits(make_runner(tiny, POOL, num_blocks=1, context=context), TOKENS[:24])

    assert np.array_equal(logits(window, 24), logits(24, 32)) == (window >= 24)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_answers_are_theirs(name: str) -> None:
    tiny = model(CONFIGS[name], POOL)
    engine = tiny_engine(tiny, POOL, kv_dtype="f32", num_blocks=32, block_size=16, max_rows=32)
    requests = [add(engine, prompt, max_tokens=64, temperature=0) for prompt in PROMPTS]
    run(engine)
    answers = [request.branches[0].completion_token_ids for request in requests]
    assert answers == _GOLDEN[name]["continuations"]
