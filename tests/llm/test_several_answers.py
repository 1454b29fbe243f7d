"""Answers of a request beside each other, beams, and log-probabilities of the prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo import LLM, SamplingParams
from octavo.errors import UsageError
from octavo.records import CacheReason, CacheRecord
from tests.serving.stories import GREEDY, PROMPT, all_token_ids, computed

ONE_BEAM = SamplingParams(beam_width=1, max_tokens=8, ignore_eos=True)


def test_answers_beside_each_other_share_the_prompt(llm: LLM) -> None:
    params = SamplingParams(n=4, seed=3, max_tokens=6, ignore_eos=True)
    output = llm.generate(PROMPT, params)[0]
    assert computed(llm) == [40] + 5 * [4]
    assert len(set(all_token_ids(output))) == 4
    assert output.usage.completion_tokens == 24
    assert output.metrics.kv_bytes == 5 * llm.info.block_bytes  # one whole, four of their own
    assert llm.generate(PROMPT, replace(params, n=1))[0].outputs == output.outputs[:1]


def test_many_long_answers_may_take_more_blocks_than_one_context_has(llm: LLM) -> None:
    """Once a request was held to the blocks of one context, whatever the pool had."""
    output = llm.generate(PROMPT, SamplingParams(n=16, seed=3, ignore_eos=True))[0]
    assert output.usage.completion_tokens == 16 * (128 - 40 + 1)
    assert output.metrics.kv_bytes == (1 + 16 * 3) * llm.info.block_bytes


def test_pieces_of_several_answers_name_theirs(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=3, max_tokens=6, ignore_eos=True)
    drawn: list[tuple[int, ...]] = [(), (), ()]
    for chunk in llm.stream(PROMPT, params):
        drawn[chunk.index] += chunk.token_ids
    assert chunk.output is not None
    assert drawn == all_token_ids(chunk.output) == all_token_ids(llm.generate(PROMPT, params)[0])


def test_one_beam_is_greedy_and_its_score_is_the_sum_of_its_log_probabilities(llm: LLM) -> None:
    want = llm.generate(PROMPT, replace(GREEDY, logprobs=0))[0].outputs[0]
    found = llm.generate(PROMPT, ONE_BEAM)[0].outputs[0]
    assert want.logprobs is not None
    assert found.token_ids == want.token_ids
    total = sum(t.logprob for t in want.logprobs)
    assert found.cumulative_logprob == pytest.approx(total, abs=1e-4)


def test_beams_find_answers_at_least_as_likely_best_first(llm: LLM) -> None:
    params = replace(ONE_BEAM, beam_width=4, n=3)
    output = llm.generate(PROMPT, params)[0]
    scores = [a.cumulative_logprob or 0.0 for a in output.outputs]
    assert scores == sorted(scores, reverse=True)
    assert len(set(all_token_ids(output))) == 3
    for answer, score in zip(output.outputs, scores, strict=True):
        exact = llm.score([*PROMPT, *answer.token_ids])[39:].sum()
        assert score == pytest.approx(float(exact), abs=1e-3)
    assert scores[0] >= (llm.generate(PROMPT, ONE_BEAM)[0].outputs[0].cumulative_logprob or 0.0)
    with pytest.raises(UsageError, match="beam_width: beams cannot be streamed; use generate"):
        llm.stream(PROMPT, params)


def test_log_probabilities_of_a_prompt_are_its_scores_and_need_every_row(llm: LLM) -> None:
    plain = llm.generate(PROMPT, GREEDY)[0]
    output = llm.generate(PROMPT, replace(GREEDY, prompt_logprobs=2))[0]
    assert output.outputs == plain.outputs
    assert output.cache == CacheRecord(reason=CacheReason.NEEDS_ALL_ROWS, saved_ms=0.0)
    assert output.prompt_logprobs is not None
    first, *rest = output.prompt_logprobs
    assert first is None
    assert [t.token_id for t in rest if t] == PROMPT[1:]
    found = [t.logprob for t in rest if t]
    assert found == pytest.approx(llm.score(PROMPT).tolist(), abs=1e-5)
    assert all(t is not None and len(t.top) == 2 for t in rest)
    assert plain.prompt_logprobs is None
