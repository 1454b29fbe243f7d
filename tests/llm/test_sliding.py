"""Sequences without an end, by the offline API: the tiny model was trained for 128 tokens."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import OutOfMemoryError, UsageError
from octavo.records import CacheReason
from tests.cli.tiny_model import write_tiny_model
from tests.serving.stories import assert_nothing_held
from tests.weights.gguf_bytes import U32, entry, u32

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
LONG = [(7 * i + i * i // 3) % 250 + 3 for i in range(600)]


def sliding(path: Path, tokens: int = 96, **options: Any) -> LLM:
    return LLM(path, threads=1, sliding_context=tokens, **options)


def test_up_to_the_contexts_end_rows_are_those_of_an_ordinary_run(tiny_path: Path) -> None:
    endless, plain = sliding(tiny_path), LLM(tiny_path, threads=1)
    assert np.array_equal(endless.logits(LONG[:96]), plain.logits(LONG[:96]))
    longer = endless.logits(LONG)
    assert np.array_equal(longer[:96], plain.logits(LONG[:96]))
    assert not np.array_equal(longer[96:128], plain.logits(LONG[:128])[96:])


def test_a_request_goes_on_past_every_context_in_the_blocks_of_one(tiny_path: Path) -> None:
    llm = sliding(tiny_path, max_batch_tokens=32)
    (output,) = llm.generate([LONG], replace(GREEDY, max_tokens=700))
    (answer,) = output.outputs
    assert (len(answer.token_ids), answer.finish_reason) == (700, "length")  # as was asked
    assert output.cache.sliding_context == 96
    assert output.cache.let_go_tokens == 600 + 699 - 96
    assert output.metrics.kv_bytes <= 5 * llm.info.block_bytes  # 96 tokens and a step's
    # It ends by what it was asked, and not where a context would.
    assert llm.generate([LONG[:10]], GREEDY)[0].cache.let_go_tokens == 0
    assert LLM(tiny_path, threads=1).generate([LONG[:10]], GREEDY)[0].cache.let_go_tokens is None
    assert_nothing_held(llm)


def test_an_answer_of_no_given_length_ends(tiny_path: Path) -> None:
    """It has as many tokens as the context, however long its prompt is."""
    llm = sliding(tiny_path)
    for prompt in (LONG[:10], LONG):
        (output,) = llm.generate([prompt], replace(GREEDY, max_tokens=None, n=2))
        assert [(len(a.token_ids), a.finish_reason) for a in output.outputs] == [(96, "length")] * 2
    bounded = sliding(tiny_path, context=100)
    (output,) = bounded.generate([LONG[:90]], replace(GREEDY, max_tokens=None))
    assert len(output.outputs[0].token_ids) == 11


def test_answers_are_those_of_chunks_of_any_length_and_of_a_cache(tiny_path: Path) -> None:
    want = sliding(tiny_path, prefix_cache=False).generate([LONG], GREEDY)[0].outputs[0].token_ids
    for options in ({"max_batch_tokens": 7}, {"max_batch_tokens": 200}, {"block_size": 16}):
        llm = sliding(tiny_path, **{"sinks": 32, **options})
        first, again = (llm.generate([LONG], GREEDY)[0] for _ in range(2))
        assert first.outputs[0].token_ids == again.outputs[0].token_ids == want
        assert (first.cache.matched_tokens, again.cache.matched_tokens) == (0, 599)
        (further,) = llm.generate([[*LONG, *want, 5]], GREEDY)
        assert further.cache.matched_tokens == 607
        assert_nothing_held(llm)


def test_a_hit_needs_the_sinks_and_what_the_window_reads(tiny_path: Path) -> None:
    """A pool of few blocks: what lies between goes first, then the end of the prompt itself."""
    llm = sliding(tiny_path, block_size=16, max_batch_tokens=16)
    llm.generate([LONG], GREEDY)
    again = llm.generate([[*LONG[:590], 9]], GREEDY)[0].cache
    assert again.matched_tokens == 590
    small = sliding(
        tiny_path, block_size=16, max_batch_tokens=16, kv_memory=9 * llm.info.block_bytes
    )
    small.generate([LONG], GREEDY)
    parted = small.generate([[*LONG[:300], 9]], GREEDY)[0].cache
    assert (parted.reason, parted.known_tokens) == (CacheReason.WINDOW, 300)
    assert parted.matched_tokens < 300
    assert_nothing_held(small)


def test_what_was_kept_with_another_context_is_not_found(tiny_path: Path) -> None:
    salts = [sliding(tiny_path, sinks=s).loop.engine.namespace for s in (0, 32)]
    others = [LLM(tiny_path, threads=1), sliding(tiny_path, 64)]
    names = {n.numerics for n in (*salts, *(o.loop.engine.namespace for o in others))}
    assert len(names) == 4


def test_without_sinks_rows_see_the_window_alone(tiny_path: Path) -> None:
    none, some = sliding(tiny_path, sinks=0), sliding(tiny_path)
    assert not np.array_equal(none.logits(LONG)[200:], some.logits(LONG)[200:])
    assert np.array_equal(none.logits(LONG)[:96], some.logits(LONG)[:96])


def test_what_does_not_slide_says_so(tiny_path: Path, tmp_path: Path) -> None:
    said = "sliding_context=160: the model was trained for at most 128 tokens, and no token may"
    with pytest.raises(UsageError, match=re.escape(said)):
        sliding(tiny_path, 160)
    more = [entry("gemma3.attention.sliding_window", U32, u32(20)),
            entry("gemma3.attention.sliding_window_pattern", U32, u32(1000))]  # fmt: skip
    path = write_tiny_model(tmp_path / "windows.gguf", architecture="gemma3", layers=2, more=more)
    with pytest.raises(UsageError, match="this model has none: all of its layers have a window"):
        sliding(path)
    with pytest.raises(OutOfMemoryError, match=r"of 96 tokens needs .*: lower sliding_context or"):
        sliding(tiny_path, kv_memory=4096)


def test_a_prompt_longer_than_any_context_is_no_error(tiny_path: Path) -> None:
    llm = sliding(tiny_path)
    assert llm.info.context == 2**30
    assert llm.stats()["sliding_context"] == 96
    scores = llm.score(LONG)
    assert len(scores) == 599
    assert np.isfinite(scores).all()
    bounded = sliding(tiny_path, context=200)  # it may be asked for
    with pytest.raises(UsageError, match="the prompt has 600 tokens, the context holds 200"):
        bounded.generate([LONG], GREEDY)
    (output,) = bounded.generate([LONG[:190]], replace(GREEDY, max_tokens=50))
    assert len(output.outputs[0].token_ids) == 11


def test_a_start_warns_of_no_context(tiny_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """2^30 tokens are beyond what the model was trained for, and each sees 96."""
    sliding(tiny_path)
    assert caplog.text == ""
