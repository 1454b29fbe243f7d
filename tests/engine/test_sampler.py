"""The sampler: draws that depend on their counters alone, penalties, logits that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.batch import StepOutput, Want
from octavo.engine.sampler import Sampler, penalties, uniform
from octavo.errors import ModelError
from octavo.kernels import default_isa
from octavo.request import Request
from octavo.sampling_params import SamplingParams

VOCAB = 64


def request(prompt: list[int], answer: list[int], **options: object) -> Request:
    params = SamplingParams.parse(options)
    made = Request(
        0, params, tuple(prompt), seed=5, temperature=params.temperature or 0.0, max_tokens=9
    )
    made.tokens += answer
    return made


def step_output(logits: np.ndarray) -> StepOutput:
    """What the head gives for rows that all want their logits."""
    none = np.zeros((len(logits), 0), np.float32)
    lse = np.log(np.exp(logits.astype(np.float64)).sum(axis=1)).astype(np.float32)
    return StepOutput(
        logits.argmax(1).astype(np.int32), lse, none.astype(np.int32), none, logits, none
    )


def test_a_draw_is_a_hash_of_its_counters() -> None:
    assert uniform(5, 0, 17) == uniform(5, 0, 17)
    draws = [
        uniform(seed, sample, position)
        for seed in range(9)
        for sample in range(9)
        for position in range(9)
    ]
    assert len(set(draws)) == 729
    assert 0 <= min(draws) < max(draws) < 1
    assert abs(np.mean(draws) - 0.5) < 0.05


def test_a_token_is_drawn_with_its_own_seed_and_position() -> None:
    """Of 64 equal logits, u picks the one at 64 u."""
    sampler = Sampler(default_isa(), VOCAB)
    asked = []
    for seed in (0, 5, 2**64 - 1):
        for prompt, answer in ((1, 0), (1, 1), (4, 1)):
            one = request([3] * prompt, [7] * answer, temperature=1.0)
            one.seed = seed
            asked.append(one)
    flat = step_output(np.zeros((len(asked), VOCAB), np.float32))
    want = [int(64 * uniform(r.seed, 0, r.num_tokens)) for r in asked]
    assert sampler.sample(asked, sampler.wants(asked), flat) == want
    assert len(set(want)) > 5


def test_each_limit_of_a_draw_reaches_the_kernel() -> None:
    sampler = Sampler(default_isa(), VOCAB)
    logits = np.tile(-np.arange(VOCAB, dtype=np.float32) / 64, (50, 1))  # nearly flat
    logits[:, 0] += 1

    def drawn(**options: object) -> set[int]:
        asked = [request([1] * n, [], **options) for n in range(1, 51)]
        return set(sampler.sample(asked, sampler.wants(asked), step_output(logits)))

    assert max(drawn(temperature=1.0)) > 40
    assert drawn(temperature=1.0, top_k=2) == {0, 1}
    assert drawn(temperature=1.0, min_p=0.99) == {0}
    assert drawn(temperature=1.0, top_p=0.01) == {0}
    assert drawn(temperature=0.01) == {0}


def test_penalties_are_edits_of_the_tokens_seen() -> None:
    edits = penalties(
        request(
            [9, 3, 3],
            [4, 9, 4],
            repetition_penalty=1.5,
            presence_penalty=0.5,
            frequency_penalty=0.25,
        )
    )
    assert edits["token"].tolist() == [3, 4, 9]
    assert edits["scale"].tolist() == [1.5, 1.5, 1.5]
    assert edits["add"].tolist() == [0.0, -1.0, -0.75]  # the prompt's own 3s do not count
    assert len(penalties(request([1, 2], [3]))) == 0
    assert penalties(request([1, 2], [3], presence_penalty=1))["token"].tolist() == [3]


def test_plain_greedy_asks_for_no_logits() -> None:
    sampler = Sampler(default_isa(), VOCAB)
    asked = sampler.wants(
        [
            request([1], [], temperature=0),
            request([1], [], temperature=0, logprobs=0),
            request([1], [], temperature=0.5),
        ]
    )
    assert asked.wants == (Want.ARGMAX, Want.LOGITS, Want.LOGITS)


def test_greedy_with_logprobs_reports_the_unedited_distribution() -> None:
    sampler = Sampler(default_isa(), VOCAB)
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, [7, 8, 9]] = [5, 4, 3]
    one = request([7], [], temperature=0, logprobs=2, repetition_penalty=2.0)
    assert sampler.sample([one], sampler.wants([one]), step_output(logits)) == [8]  # 5 / 2 < 4
    lse = float(np.log(np.exp(logits.astype(np.float64)).sum()))
    (record,) = one.logprobs
    assert record.logprob == pytest.approx(4 - lse, abs=1e-6)
    assert [token for token, _ in record.top] == [7, 8]


def test_logits_that_are_no_numbers_are_an_error_of_the_model() -> None:
    sampler = Sampler(default_isa(), VOCAB)
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 3] = np.nan
    one = request([7], [], temperature=0)
    with pytest.raises(ModelError, match="not finite"):
        sampler.sample([one], sampler.wants([one]), step_output(logits))
