"""Answers under a grammar, behind the offline API: whole, exact, and alone in their failures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, RequestOptions, SamplingParams
from octavo.constraint import Constraint, ConstraintState, Words
from octavo.errors import ConstraintError, GrammarError, UsageError
from tests.serving.stories import assert_nothing_held

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [1, 22, "three"]}, "b": {"type": "string", "maxLength": 4}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
WARM = SamplingParams(temperature=1.0, seed=3, max_tokens=90)


def asked(llm: LLM, grammar: dict[str, Any] | None) -> RequestOptions:
    return RequestOptions(constraint=None if grammar is None else llm.grammar(**grammar))


def under(constraint: Constraint) -> RequestOptions:
    return RequestOptions(constraint=constraint)


@pytest.mark.parametrize("params", [WARM, replace(WARM, n=3), replace(WARM, temperature=0)])
def test_answers_are_documents_of_the_schema(llm: LLM, params: SamplingParams) -> None:
    for seed in range(5):
        asked = replace(params, seed=seed)
        (output,) = llm.generate([[1, 2, 3]], asked, under(llm.grammar(json=SCHEMA)))
        for answer in output.outputs:
            if answer.finish_reason == "stop":
                found = json.loads(answer.text)
                assert found["a"] in (1, 22, "three")
                assert len(found["b"]) <= 4
    assert "stop" in {each.finish_reason for each in output.outputs}


def test_an_answer_ends_with_its_last_token_and_needs_no_end_token(llm: LLM) -> None:
    (output,) = llm.generate([[1]], WARM, under(llm.grammar(regex="[ab]{3}")))
    (answer,) = output.outputs
    assert re.fullmatch("[ab]{3}", answer.text)
    assert (len(answer.token_ids), answer.finish_reason) == (3, "stop")
    exact = replace(WARM, max_tokens=3)
    assert llm.generate([[1]], exact, under(llm.grammar(regex="[ab]{3}")))[0].outputs == (answer,)
    short = replace(WARM, max_tokens=2)
    (cut,) = llm.generate([[1]], short, under(llm.grammar(regex="[ab]{3}")))[0].outputs
    assert (cut.token_ids, cut.finish_reason) == (answer.token_ids[:2], "length")


def test_log_probabilities_are_the_models_own(llm: LLM) -> None:
    params = replace(WARM, temperature=0, logprobs=2, max_tokens=1)
    free = llm.generate([[1, 2]], params)[0].outputs[0].logprobs
    bound = llm.generate([[1, 2]], params, under(llm.grammar(regex="z")))[0].outputs[0].logprobs
    assert free is not None
    assert bound is not None
    assert bound[0].top == free[0].top
    assert bound[0].logprob < free[0].logprob


def test_masked_answers_are_the_same_alone_among_others_and_preempted(tiny_path: Path) -> None:
    roomy = LLM(tiny_path, threads=1)
    cases: list[tuple[list[int], dict[str, Any] | None, SamplingParams]] = [
        ([1, 2, 3], {"json": SCHEMA}, WARM),
        ([1, 2, 3], {"regex": "[a-f]{70}"}, replace(WARM, temperature=0, max_tokens=80)),
        ([4, 2], {"regex": "[g-q]{80}"}, replace(WARM, temperature=0)),
        ([6, 2], {"json": {"type": "string", "minLength": 70}}, WARM),
        ([5] * 6, {"choice": ["yes, " * 9, "no, " * 9]}, replace(WARM, n=2)),
        ([7] * 9, {"json": {"type": "array"}}, replace(WARM, repetition_penalty=1.2)),
        ([8] * 3, None, replace(WARM, ignore_eos=True)),
        ([9] * 12, {"regex": ".{40}", "after": "q"}, replace(WARM, seed=8)),
    ]
    kept = roomy.grammar(json=SCHEMA)
    alone = []
    for prompt, grammar, params in cases:
        alone.append(roomy.generate([prompt], params, asked(roomy, grammar))[0].outputs)
    assert roomy.grammar(json=SCHEMA) is kept
    tight = LLM(
        tiny_path, threads=1, block_size=16, context=128, kv_memory=10 * roomy.info.block_bytes
    )
    options = [asked(tight, grammar) for _, grammar, _ in cases]
    together = tight.generate([c[0] for c in cases], [c[2] for c in cases], options)
    assert [each.outputs for each in together] == alone
    assert sum(record.num_preempted for record in tight.records) > 0
    assert_nothing_held(tight)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        (SamplingParams(beam_width=2), "beam_width=2: cannot be combined with a constraint"),
        (SamplingParams(ignore_eos=True), "ignore_eos=True: cannot be combined with a constraint"),
    ],
)
def test_what_a_constraint_cannot_go_with(llm: LLM, params: SamplingParams, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        llm.generate([[1]], params, under(llm.grammar(regex="a")))


def test_what_is_no_constraint_of_this_model(llm: LLM, tiny_path: Path) -> None:
    with pytest.raises(UsageError, match=r"constraint='a\+': expected what LLM\.grammar gives"):
        RequestOptions(constraint="a+")  # type: ignore[arg-type]
    other = LLM(tiny_path, threads=1)
    for _ in range(2):  # also when this one has compiled one of its own
        with pytest.raises(UsageError, match="made for another model"):
            llm.generate([[1]], WARM, under(other.grammar(regex="a")))
        llm.grammar(regex="a")
    with pytest.raises(GrammarError, match="unclosed group"):
        llm.grammar(regex="(")


class Breaking:
    """Two tokens, and then nothing may follow."""

    def __init__(self, vocabulary: object) -> None:
        self.vocabulary = vocabulary

    def start(self) -> ConstraintState:
        return BreakingState()


class BreakingState:
    is_done = False
    count = 0

    def fill_mask(self, words: Words) -> None:
        if self.count == 2:
            raise ConstraintError("the answer is beyond the limits of its grammar")
        words[:] = 0xFFFFFFFF

    def accept(self, token: int) -> None:
        self.count += 1

    def fork(self) -> ConstraintState:
        raise AssertionError("one answer")


def test_a_grammar_that_fails_in_mid_answer_ends_its_request_alone(llm: LLM) -> None:
    vocabulary = llm.grammar(regex="a").vocabulary
    params = replace(WARM, temperature=0, max_tokens=5, ignore_eos=False)
    free = llm.generate([[4, 5]], params)[0].outputs
    options = [under(Breaking(vocabulary)), RequestOptions()]
    outputs = dict(llm.as_completed([[1, 2], [4, 5]], params, options))
    assert outputs[0].outputs[0].finish_reason == "error"
    assert outputs[0].error == "the answer is beyond the limits of its grammar"
    assert len(outputs[0].outputs[0].token_ids) == 2
    assert outputs[1].outputs == free
