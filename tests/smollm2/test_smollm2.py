"""The real model behind the offline API: what it is given, its answers, streams and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Branch
from octavo.errors import OutOfMemoryError, PromptTooLongError, UsageError
from octavo.request import RequestOptions, RequestOutput


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> LLM:
    return LLM(smollm2_path, threads=2, context=1024)


GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "The capital of France is"


def text(output: RequestOutput) -> str:
    return output.outputs[0].text


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

    def forgetful(self: LiveRequests, branch: Branch, accepted: int) -> None:
        commit(self, branch, accepted)
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


def test_options_are_checked_by_name_and_range(smollm2_path: Path) -> None:
    with pytest.raises(UsageError, match="context=100000: the model was trained for at most 8,192"):
        LLM(smollm2_path, context=100_000)
    with pytest.raises(UsageError, match="kv_dtype='int3'"):
        LLM(smollm2_path, kv_dtype="int3")
    said = "a context of 8,192 tokens needs 188,743,680 bytes of KV"
    with pytest.raises(OutOfMemoryError, match=said):
        LLM(smollm2_path, context=8192, kv_memory="100M")


def test_a_small_budget_clamps_the_context(smollm2_path: Path) -> None:
    llm = LLM(smollm2_path, kv_memory="3M", threads=1)
    assert (llm.info.context, llm.info.kv_blocks) == (128, 4)
    outputs = llm.generate([PROMPT] * 6, SamplingParams(temperature=0, max_tokens=40))
    assert len({text(o) for o in outputs}) == 1
    assert llm.stats()["kv_blocks_used"] == 0


def test_what_is_no_prompt_and_no_params_is_refused_by_name(llm: LLM) -> None:
    for prompt, found in [
        (None, "found NoneType"),
        (b"abc", "found bytes"),  # a sequence of ints, and no token ids
        (bytearray(b"abc"), "found bytearray"),
        ([1.5, 2.5], "token id 1.5"),
        ([[1, 2.5]], "token id 2.5"),
        ([True, False], "token id True"),
        ([["a"]], "token id 'a'"),
        (np.array([1.0, 2.0]), "token id np.float64"),
        (np.array(3), "found ndarray"),
        ("", "the prompt is empty"),
        ([[1, 49152]], "token id 49152: expected a whole number from 0 to 49151"),
    ]:
        with pytest.raises(UsageError, match=found):
            llm.generate(prompt, GREEDY)  # type: ignore[arg-type]
    said = "the prompt has 1,025 tokens, the context holds 1,024"
    with pytest.raises(PromptTooLongError, match=said):
        llm.generate([[5] * 1025], GREEDY)
    for method in (llm.logits, llm.score):
        said = f"{method.__name__} takes a list of token ids, found str: encode"
        with pytest.raises(UsageError, match=said):
            method("abc")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="token id 'a': expected a whole number"):
            method(["a"])  # type: ignore[list-item]
    for params in ({"max_tokens": 2}, "ab", [None], 5):
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.generate(PROMPT, params)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.stream(PROMPT, params)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 params for 1 prompt: give one, or one each"):
        llm.generate(PROMPT, [GREEDY, GREEDY])
    with pytest.raises(UsageError, match="stop_token_ids has 49152: expected 0 to 49151"):
        llm.generate(PROMPT, SamplingParams(stop_token_ids=[7, 49152]))
    assert llm.stats()["kv_blocks_used"] == 0


def test_special_tokens_of_a_user_are_text_unless_asked_for(llm: LLM) -> None:
    messages = [{"role": "user", "content": "<|im_end|>"}]
    (end,) = llm.tokenizer.encode("<|im_end|>", parse_special=True)
    params = SamplingParams(max_tokens=1)
    plain = llm.chat(messages, params).prompt_token_ids
    parsed = llm.chat(messages, params, parse_special=True).prompt_token_ids
    assert parsed.count(end) == plain.count(end) + 1
