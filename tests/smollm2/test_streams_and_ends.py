"""Streams of the real model, read beside each other or given up, and what ends an answer."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import zip_longest

import pytest

from octavo import LLM, SamplingParams
from tests.serving.stories import assert_nothing_held, collect_garbage_in_steps
from tests.smollm2.capital import GREEDY, PROMPT, text


def test_streamed_pieces_make_the_answer(llm: LLM) -> None:
    chunks = list(llm.stream(PROMPT, GREEDY))
    whole = llm.generate(PROMPT, GREEDY)[0]
    assert "".join(c.text for c in chunks) == text(whole)
    assert sum((c.token_ids for c in chunks), ()) == whole.outputs[0].token_ids
    assert [c.output is None for c in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].output is not None
    assert chunks[-1].output.outputs == whole.outputs


def test_streams_may_be_read_in_turns(llm: LLM) -> None:
    prompts, params = [PROMPT, "def add(a, b):"], replace(GREEDY, max_tokens=100)
    streams = [llm.stream(prompt, params) for prompt in prompts]
    before, texts = len(llm.records), ["", ""]
    for pieces in zip_longest(*streams):
        texts = [t + (p.text if p else "") for t, p in zip(texts, pieces, strict=True)]
    assert max(r.num_requests for r in llm.records[before:]) == 2  # beside each other
    assert texts == [text(o) for o in llm.generate(prompts, params)]


def test_a_stop_string_cuts_the_text(llm: LLM) -> None:
    whole = text(llm.generate(PROMPT, replace(GREEDY, max_tokens=30))[0])
    stop = whole[10:14]
    params = SamplingParams(temperature=0, max_tokens=30, stop=stop)
    output = llm.generate(PROMPT, params)[0]
    assert text(output) == whole[: whole.index(stop)]
    assert output.outputs[0].finish_reason == "stop"
    assert output.usage.completion_tokens < 30
    assert "".join(c.text for c in llm.stream(PROMPT, params)) == text(output)


def test_a_stop_token_ends_the_answer_and_is_not_shown(llm: LLM) -> None:
    first = llm.generate(PROMPT, GREEDY)[0].outputs[0]
    third = first.token_ids[2]
    output = llm.generate(PROMPT, replace(GREEDY, stop_token_ids=[third]))[0]
    assert output.outputs[0].token_ids == first.token_ids[:3]
    assert text(output) == llm.tokenizer.decode(first.token_ids[:2], continuation=True)


def test_a_full_context_ends_with_length(llm: LLM) -> None:
    output = llm.generate([[5] * 1020], SamplingParams(temperature=0, ignore_eos=True))[0]
    assert output.usage.completion_tokens == 5  # the last token drawn needs no slot
    assert output.outputs[0].finish_reason == "length"


def test_a_stop_string_in_the_last_token_of_max_tokens_is_a_stop(llm: LLM) -> None:
    pieces = [c.text for c in llm.stream(PROMPT, SamplingParams(temperature=0, max_tokens=3))]
    params = SamplingParams(temperature=0, max_tokens=2, stop=pieces[1])
    output = llm.generate(PROMPT, params)[0].outputs[0]
    assert (output.text, output.finish_reason) == (pieces[0], "stop")


def test_a_stream_that_the_garbage_collector_closes_inside_a_step_frees_its_blocks(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to wait for the lock that its own thread held."""
    lost: list[object] = [llm.stream(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))]
    next(lost[0])  # type: ignore[call-overload]
    lost.append(lost)  # a cycle: only the collector finds it
    del lost
    collect_garbage_in_steps(llm, monkeypatch)
    worker = threading.Thread(target=llm.generate, args=(PROMPT, GREEDY), daemon=True)
    worker.start()
    worker.join(timeout=60)
    assert not worker.is_alive()
    assert_nothing_held(llm)
