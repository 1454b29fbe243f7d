"""What a request of the offline API finds of others, and what its record says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import RequestOptions
from octavo.serving.stats import engine_stats
from tests.gate import Gate
from tests.serving.stories import GREEDY, LONG, PROMPT, assert_nothing_held, computed


def test_a_prompt_asked_again_computes_its_last_token_alone(llm: LLM) -> None:
    first, again = (llm.generate(PROMPT, GREEDY)[0] for _ in range(2))
    assert again.outputs == first.outputs
    assert computed(llm) == [40] + 7 * [1] + 8 * [1]
    missed = CacheRecord(
        reason=CacheReason.COLD,
        diverged_at=0,
        diverged_text=llm.tokenizer.decode([first.prompt_token_ids[0]], skip_special=False),
        saved_ms=0.0,
    )
    assert first.cache == missed
    assert again.cache.matched_tokens == again.usage.cached_tokens == 39
    assert (again.cache.source, again.cache.reason) == (CacheSource.PROCESS, None)
    assert again.cache.saved_ms is not None
    assert again.cache.saved_ms > 0  # 40 rows were measured


def test_a_prompt_without_an_answer_is_computed_and_found(llm: LLM, tiny_path: Path) -> None:
    nothing = replace(GREEDY, max_tokens=0, n=2, logprobs=0)
    (*_, last) = chunks = list(llm.stream(PROMPT, nothing))
    assert [(c.index, c.text, c.token_ids, c.finish_reason) for c in chunks] == [
        (index, "", (), "length") for index in range(2)
    ]
    assert last.output is not None
    assert [a.logprobs for a in last.output.outputs] == [(), ()]
    assert last.output.usage.completion_tokens == 0
    assert computed(llm) == [40]
    answer = llm.generate(PROMPT, GREEDY)[0]
    assert answer.cache.matched_tokens == 39
    assert answer.outputs == LLM(tiny_path, threads=1).generate(PROMPT, GREEDY)[0].outputs


def test_answers_are_found_too_and_the_record_names_the_token_that_differs(llm: LLM) -> None:
    first = llm.generate(PROMPT, GREEDY)[0].outputs[0].token_ids
    wrong = (first[5] + 1) % 256
    output = llm.generate([[*PROMPT, *first[:5], wrong, 9]], GREEDY)[0]
    assert output.cache.matched_tokens == output.cache.diverged_at == 45
    assert output.cache.reason is CacheReason.DIVERGED
    assert output.cache.diverged_text == llm.tokenizer.decode([wrong])
    assert llm.generate([[*PROMPT, *first]], GREEDY)[0].cache.matched_tokens == 47


def test_a_control_token_that_differs_is_named(llm: LLM) -> None:
    llm.generate(PROMPT, GREEDY)
    output = llm.generate([[*PROMPT[:3], 257, 5]], GREEDY)[0]
    assert (output.cache.diverged_at, output.cache.diverged_text) == (3, "<|im_end|>")


@pytest.mark.parametrize("options", [{"prefix_cache": False}, {"kv_cache": False}], ids=str)
def test_without_a_cache_nothing_is_found_and_the_answer_is_the_same(
    tiny_path: Path, llm: LLM, options: dict[str, Any]
) -> None:
    without = LLM(tiny_path, threads=1, **options)
    want = llm.generate(PROMPT, GREEDY)[0].outputs
    for _ in range(2):
        output = without.generate(PROMPT, GREEDY)[0]
        assert output.outputs == want
        assert output.cache == CacheRecord(reason=CacheReason.DISABLED, saved_ms=0.0)
    assert without.stats()["kv_blocks_kept"] == 0


def test_a_salt_sees_its_own_tokens_alone(llm: LLM) -> None:
    for salt, matched, reason in [
        ("", 0, CacheReason.COLD),
        ("a", 0, CacheReason.SALT),
        ("a", 39, None),
        ("b", 0, CacheReason.SALT),
        ("", 39, None),
    ]:
        record = llm.generate(PROMPT, GREEDY, RequestOptions(cache_salt=salt))[0].cache
        assert (record.matched_tokens, record.reason) == (matched, reason)


def test_what_memory_was_needed_for_is_said_to_be_evicted(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, kv_memory="16K")  # two blocks
    llm.generate(PROMPT, GREEDY)
    llm.generate([[7] * 40], GREEDY)
    output = llm.generate(PROMPT, GREEDY)[0]
    assert (output.cache.matched_tokens, output.cache.reason) == (0, CacheReason.EVICTED)
    assert llm.stats()["kv_blocks_evicted"] == 4
    assert_nothing_held(llm)


def test_prompts_offered_together_compute_what_they_share_once(llm: LLM) -> None:
    shared = [i * 5 % 250 for i in range(64)]
    prompts = [[*shared, i] for i in range(8)]
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=1))
    assert sum(computed(llm)) == 65 + 7
    assert [o.usage.cached_tokens for o in outputs] == [0] + 7 * [64]


def test_a_stream_that_is_given_up_leaves_its_tokens_to_others(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(llm, monkeypatch)
    stream = llm.stream(PROMPT, LONG)
    drawn: list[int] = []
    for _ in range(4):
        gate.let_one_pass()
        drawn += next(stream).token_ids
    for _ in range(5):
        gate.wait()  # until its fifth step
    assert engine_stats(llm.loop.engine, llm.info)["kv_blocks_used"] == 2
    stream.close()
    gate.open()
    llm.stream(PROMPT, LONG)  # nor does one hold anything that nobody reads
    assert_nothing_held(llm)
    before = len(llm.records)
    output = llm.generate([[*PROMPT, *drawn]], GREEDY)[0]
    assert (len(drawn), output.cache.matched_tokens) == (4, 43)  # the last was never computed
    assert computed(llm, before)[0] == 1
