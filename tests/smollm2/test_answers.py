"""Answers of the real model: tokens, draws, log-probabilities; the cache changes no bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.engine.live import Live, LiveRequests
from octavo.request import Branch, RequestOptions
from tests.smollm2.capital import GREEDY, PROMPT, text


def test_it_knows_the_capital_of_france(llm: LLM) -> None:
    output = llm.generate(PROMPT, GREEDY)[0]
    assert text(output).startswith(" Paris")
    assert output.usage.prompt_tokens == 5
    assert output.usage.completion_tokens == len(output.outputs[0].token_ids) == 12
    assert output.outputs[0].finish_reason == "length"
    assert output.metrics.kv_bytes == llm.info.block_bytes


def test_a_chat_ends_with_the_end_of_its_turn(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    output = llm.chat(messages, SamplingParams(temperature=0, max_tokens=100))
    assert output.outputs[0].finish_reason == "stop"
    assert output.outputs[0].token_ids[-1] in llm.tokenizer.eos_ids
    assert "<|im_end|>" not in text(output)
    ids = output.outputs[0].token_ids
    more = SamplingParams(temperature=0, max_tokens=len(ids) + 2, ignore_eos=True)
    longer = llm.chat(messages, more).outputs[0]
    assert (longer.finish_reason, longer.token_ids[: len(ids)]) == ("length", ids)


def test_a_prompt_is_a_string_or_token_ids_and_a_batch_equals_its_parts(llm: LLM) -> None:
    ids = llm.tokenizer.encode(PROMPT)
    tale = "Once upon a time, in a land far away, there was a"
    prompts: list[str | Sequence[int]] = [PROMPT, ids, "def add(a, b):", tale]
    together = llm.generate(prompts, GREEDY)
    alone = [llm.generate([p], GREEDY)[0] for p in prompts]
    assert [text(o) for o in together] == [text(o) for o in alone]
    assert text(together[0]) == text(together[1]) == text(llm.generate(ids, GREEDY)[0])


def test_without_a_cache_every_bit_is_the_same_and_every_token_is_computed_again(
    llm: LLM, smollm2_path: Path
) -> None:
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=3)
    uncached = LLM(smollm2_path, threads=2, context=1024, kv_cache=False)
    before = len(llm.records)
    want = llm.generate(PROMPT, params, RequestOptions(cache_salt="step by step"))[0]
    got = uncached.generate(PROMPT, params)[0]
    assert got.outputs == want.outputs  # texts, tokens and log-probabilities
    cached_steps = [(r.computed_tokens, r.kv_read_tokens) for r in llm.records[before:]]
    assert cached_steps == [(5, 0), (1, 5), (1, 6), (1, 7), (1, 8), (1, 9)]
    steps = [(r.computed_tokens, r.kv_read_tokens) for r in uncached.records]
    assert steps == [(5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0)]


def test_step_counts_are_read_off_the_batch_not_off_a_formula(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that wrongly computes the last two tokens again must show it."""
    commit = LiveRequests.commit

    def forgetful(self: LiveRequests, live: Live, branch: Branch, accepted: int) -> None:
        commit(self, live, branch, accepted)
        branch.num_computed_tokens -= 2

    monkeypatch.setattr(LiveRequests, "commit", forgetful)
    before = len(llm.records)
    params = SamplingParams(temperature=0, max_tokens=3)
    llm.generate(PROMPT, params, RequestOptions(cache_salt="forgetful"))
    steps = [(r.computed_tokens, r.kv_read_tokens) for r in llm.records[before:]]
    assert steps == [(5, 0), (3, 3), (3, 4)]  # a formula would say (1, 5), (1, 6)


def test_the_same_seed_draws_the_same_answer_in_any_batch(llm: LLM) -> None:
    params = SamplingParams(seed=11, max_tokens=16, top_p=0.95, top_k=50, min_p=0.02)
    alone = llm.generate(PROMPT, params)[0]
    other = replace(params, seed=12)
    batch = llm.generate([PROMPT, PROMPT], [other, params])
    assert batch[1].outputs == alone.outputs
    assert batch[0].outputs != alone.outputs
    unseeded = llm.generate(PROMPT, SamplingParams(max_tokens=16))[0]
    again = llm.generate(PROMPT, SamplingParams(max_tokens=16, seed=unseeded.seed))[0]
    assert again.outputs == unseeded.outputs


def test_logprobs_are_those_of_the_model(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=5, repetition_penalty=1.3)
    output = llm.generate(PROMPT, params)[0]
    completion = output.outputs[0]
    assert completion.logprobs is not None
    ids = [*output.prompt_token_ids, *completion.token_ids]
    logits = llm.logits(ids).astype(np.float64)[len(output.prompt_token_ids) - 1 : -1]
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    scores = llm.score(ids)[len(output.prompt_token_ids) - 1 :]
    for row, score, got, token in zip(
        exact, scores, completion.logprobs, completion.token_ids, strict=True
    ):
        assert got.token_id == token
        assert got.logprob == pytest.approx(row[token], abs=1e-4)
        assert got.logprob == pytest.approx(float(score), abs=1e-5)
        assert [t for t, _ in got.top] == np.argsort(-row, kind="stable")[:5].tolist()


def test_penalties_change_what_is_likely(llm: LLM) -> None:
    prompt = "yes no yes no yes no yes no yes no yes"
    plain = llm.generate(prompt, GREEDY)[0]
    assert text(plain).startswith(" no no no no")
    for penalty in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        params = SamplingParams.parse({"temperature": 0, "max_tokens": 12, penalty: 2.0})
        assert llm.generate(prompt, params)[0].outputs != plain.outputs


def test_logits_and_scores_go_through_the_pages_and_leave_none_behind(llm: LLM) -> None:
    ids = llm.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 20)
    logits = llm.logits(ids)
    assert logits.shape == (len(ids), 49152)
    assert len(ids) > 128  # more than one step
    assert llm.score(ids).shape == (len(ids) - 1,)
    assert llm.stats()["kv_blocks_used"] == 0
    assert np.array_equal(llm.logits(ids[:40]), logits[:40])


def test_a_temperature_too_small_for_a_float32_is_greedy(llm: LLM) -> None:
    tiny = llm.generate(PROMPT, replace(GREEDY, temperature=1e-300))[0]
    assert tiny.outputs == llm.generate(PROMPT, GREEDY)[0].outputs
