"""Requests of the offline API beside each other: order, errors, deadlines, options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.engine.nouns import Branch
from octavo.errors import KernelError, UsageError
from octavo.records import CacheReason
from octavo.request import RequestOptions
from tests.serving.stories import GREEDY, all_token_ids, assert_nothing_held, slow_down
from tests.tiny import set_clock


def lengths(*counts: int) -> list[SamplingParams]:
    return [replace(GREEDY, max_tokens=n) for n in counts]


def test_answers_come_as_they_are_done(llm: LLM) -> None:
    prompts, params = [[1, 2], [3, 4], [5, 6]], lengths(9, 2, 5)
    found = list(llm.as_completed(prompts, params))
    assert [index for index, _ in found] == [1, 2, 0]
    outputs = dict(found)
    want = llm.generate(prompts, params)
    assert [outputs[i].outputs for i in range(3)] == [o.outputs for o in want]


def test_who_stops_listening_ends_what_is_left(llm: LLM) -> None:
    answers = llm.as_completed([[1, 2], [3, 4]], lengths(2, 100))
    index, _ = next(answers)
    assert index == 0
    assert llm.loop.num_open == 1
    answers.close()  # type: ignore[attr-defined]
    assert_nothing_held(llm)


def test_an_answer_that_fails_harms_no_other_and_generate_and_streams_raise_why(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(seed=1, top_k=8, max_tokens=4, ignore_eos=True)  # not the head's draw
    prompts = [[1, 2], [3, 4], [5, 6]]
    want = llm.generate(prompts, params)
    draw = llm.loop.engine.draws.draw

    def failing(branch: Branch, *arguments: Any) -> Any:
        if branch.request.prompt_token_ids == (3, 4):
            raise KernelError("the head gave no numbers")
        return draw(branch, *arguments)

    monkeypatch.setattr(llm.loop.engine.draws, "draw", failing)
    found = list(llm.as_completed(prompts, params))
    assert [index for index, _ in found] == [1, 0, 2]
    outputs = [output for _, output in sorted(found, key=lambda f: f[0])]
    assert [o.error for o in outputs] == [None, "the head gave no numbers", None]
    assert (outputs[1].outputs[0].finish_reason, all_token_ids(outputs[1])) == ("error", [()])
    assert [outputs[i].outputs for i in (0, 2)] == [want[i].outputs for i in (0, 2)]
    assert_nothing_held(llm)
    with pytest.raises(KernelError, match="no numbers"):
        llm.generate([[1, 2], [3, 4]], params)
    assert_nothing_held(llm)
    with pytest.raises(KernelError, match="no numbers"):
        list(llm.stream([3, 4], params))
    assert_nothing_held(llm)
    assert llm.generate([1, 2], params)[0].outputs == want[0].outputs


def test_a_bad_prompt_among_good_ones_starts_nothing(llm: LLM) -> None:
    with pytest.raises(UsageError, match="token id 999"):
        llm.generate([[1, 2], [999]], GREEDY)
    with pytest.raises(UsageError, match="options: expected RequestOptions, found dict"):
        llm.generate([1, 2], GREEDY, {"priority": 1})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 options for 1 prompt"):
        llm.generate([1, 2], GREEDY, [RequestOptions()] * 2)
    assert llm.records == []


def test_a_deadline_ends_an_answer_with_what_it_has(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves by a second with every forward."""
    now = [0.0]
    set_clock(llm.loop.engine, lambda: now[0])
    slow_down(monkeypatch, llm.loop.engine.runner, "forward", now, 1)
    options = [RequestOptions(deadline_ms=2500), RequestOptions()]
    late, other = llm.generate([[1, 2], [3, 4]], GREEDY, options)
    assert late.outputs[0].finish_reason == "deadline"
    assert late.outputs[0].token_ids == llm.generate([1, 2], GREEDY)[0].outputs[0].token_ids[:3]
    assert (other.outputs[0].finish_reason, len(other.outputs[0].token_ids)) == ("length", 8)


def test_a_lower_priority_number_runs_first(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    options = [RequestOptions(priority=p) for p in (3, -1, 2)]
    done = llm.as_completed([[1, 2], [3, 4], [5, 6]], GREEDY, options)
    assert [index for index, _ in done] == [1, 2, 0]


def test_a_chat_takes_the_options_of_a_request(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Whose tokens are these?"}]
    mine, yours = RequestOptions(cache_salt="me"), RequestOptions(cache_salt="you")
    short = SamplingParams(temperature=0, max_tokens=2)
    first = llm.chat(messages, short, mine)
    *_, again = llm.chat_stream(messages, short, mine)
    assert again.output is not None
    assert again.output.cache.matched_tokens == first.usage.prompt_tokens - 1
    assert llm.chat(messages, short, yours).cache.reason is CacheReason.SALT
