"""How the offline API draws: by seeds, as the file recommends, several answers, beams."""

from __future__ import annotations

import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from octavo import LLM, Sampling, SamplingParams
from octavo.errors import UsageError
from octavo.protocol.completions import parse_completion
from octavo.records import CacheReason, CacheRecord
from tests.cli.tiny_model import write_tiny_model
from tests.serving.stories import GREEDY, PROMPT, all_token_ids, computed
from tests.weights.gguf_bytes import F32, U32, entry, u32


def test_a_seed_of_zero_is_a_seed(llm: LLM) -> None:
    outputs = llm.generate([[1, 2]] * 2, SamplingParams(seed=0, max_tokens=20))
    assert [o.seed for o in outputs] == [0, 0]
    assert outputs[0].outputs == outputs[1].outputs


@pytest.fixture
def recommending(tmp_path: Path) -> LLM:
    """A model whose file says: take the likeliest token, and not twice."""
    entries = [
        entry("general.sampling.top_k", U32, u32(1)),
        entry("general.sampling.penalty_repeat", F32, struct.pack("<f", 1.75)),
    ]
    return LLM(write_tiny_model(tmp_path / "own.gguf", more=entries), threads=1)


def test_what_the_file_recommends_is_used_where_nothing_else_is_given(recommending: LLM) -> None:
    def tokens(**given: object) -> tuple[int, ...]:
        params = SamplingParams.parse({"max_tokens": 20, "seed": 1, "ignore_eos": True, **given})
        return recommending.generate([[1, 2]], params)[0].outputs[0].token_ids

    greedy = tokens(temperature=0, repetition_penalty=1.75)
    assert tokens() == tokens(top_k=1, repetition_penalty=1.75) == greedy
    assert tokens(temperature=0) == greedy  # the likeliest, with the penalty that is recommended
    # Each field alone: what is given wins, the other one stays.
    assert tokens(repetition_penalty=1) == tokens(temperature=0, repetition_penalty=1) != greedy
    assert tokens(top_k=0) == tokens(top_k=0, repetition_penalty=1.75) != greedy
    assert tokens(top_k=0, repetition_penalty=1) != tokens(top_k=0)


def test_an_output_tells_what_its_draws_were_shaped_by(recommending: LLM, llm: LLM) -> None:
    params = SamplingParams(max_tokens=1, temperature=0.5)
    want = Sampling(temperature=0.5, top_k=1, repetition_penalty=1.75)
    output = recommending.generate([[1, 2]], params)[0]
    assert output.sampling == want
    assert output.to_dict()["sampling"] == asdict(want)
    again = SamplingParams(max_tokens=1, seed=output.seed, **asdict(want))
    assert llm.generate([[1, 2]], again)[0].outputs == output.outputs
    beams = SamplingParams(max_tokens=1, beam_width=2)
    assert recommending.generate([[1, 2]], beams)[0].sampling is None
    assert llm.generate([[1, 2]])[0].sampling == Sampling()


def test_every_door_uses_what_the_file_recommends(recommending: LLM) -> None:
    want = recommending.info.sampling
    assert want == Sampling(top_k=1, repetition_penalty=1.75)
    *_, chunk = recommending.stream([1, 2])
    assert chunk.output is not None
    body = {"model": "m", "prompt": [1, 2], "max_tokens": 2, "temperature": None}
    request = parse_completion(body)
    answered = recommending.generate(list(request.prompts), request.params)[0]
    chatted = recommending.chat([{"role": "user", "content": "hi"}])
    assert chunk.output.sampling == answered.sampling == chatted.sampling == want


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


def test_a_bias_moves_what_is_drawn_and_not_what_is_told_of_it(llm: LLM) -> None:
    plain = llm.generate(PROMPT, replace(GREEDY, logprobs=3))[0].outputs[0]
    assert plain.logprobs is not None
    best, second = (token for token, _ in plain.logprobs[0].top[:2])
    banned = replace(GREEDY, logprobs=3, logit_bias={best: -100})
    found = llm.generate(PROMPT, banned)[0].outputs[0]
    assert found.logprobs is not None
    assert best not in found.token_ids
    assert found.token_ids[0] == second
    assert found.logprobs[0].top == plain.logprobs[0].top
    # The head applies the same edits where no logits are asked for.
    assert llm.generate(PROMPT, replace(banned, logprobs=None))[0].outputs[0].token_ids == (
        found.token_ids
    )
    only = SamplingParams(seed=1, max_tokens=4, ignore_eos=True, logit_bias={7: 100})
    assert all_token_ids(llm.generate(PROMPT, only)[0]) == [(7, 7, 7, 7)]


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
