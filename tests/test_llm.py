"""The offline API on the real model: answers, streams, ends, penalties, errors; the cache changes
no bit."""

from __future__ import annotations

import gc
import struct
import threading
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, Sampling, SamplingParams
from octavo.batch import Batch, StepOutput
from octavo.engine.live import Live, LiveRequests
from octavo.errors import OutOfMemoryError, PromptTooLongError, UsageError
from octavo.protocol.completions import parse_completion
from octavo.request import Branch, RequestOptions, RequestOutput
from tests.cli.tiny_model import spm_entries, write_tiny_model
from tests.tiny import set_clock
from tests.weights.gguf_bytes import F32, U32, entry, u32

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> LLM:
    return LLM(smollm2_path, threads=2, context=1024)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


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
    prompts = [PROMPT, ids, "def add(a, b):", "Once upon a time, in a land far away, there was a"]
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


def test_streamed_pieces_make_the_answer(llm: LLM) -> None:
    chunks = list(llm.stream(PROMPT, GREEDY))
    whole = llm.generate(PROMPT, GREEDY)[0]
    assert "".join(c.text for c in chunks) == text(whole)
    assert sum((c.token_ids for c in chunks), ()) == whole.outputs[0].token_ids
    assert [c.output is None for c in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].output is not None
    assert chunks[-1].output.outputs == whole.outputs


def test_a_closed_stream_and_an_unread_one_hold_nothing(llm: LLM) -> None:
    stream = llm.stream(PROMPT, SamplingParams(max_tokens=200, ignore_eos=True))
    next(stream)
    assert llm.stats()["kv_blocks_used"] == 1
    stream.close()
    llm.stream(PROMPT, GREEDY)
    gc.collect()
    assert llm.stats()["kv_blocks_used"] == 0
    llm.loop.call(llm.loop.engine.check_integrity)
    assert llm.loop.num_open == 0  # nor is anything remembered of them


def test_streams_may_be_read_in_turns(llm: LLM) -> None:
    prompts, params = [PROMPT, "def add(a, b):"], replace(GREEDY, max_tokens=100)
    streams = [llm.stream(prompt, params) for prompt in prompts]
    before, texts = len(llm.records), ["", ""]
    for pieces in zip_longest(*streams):
        texts = [t + (p.text if p else "") for t, p in zip(texts, pieces, strict=True)]
    assert max(r.num_requests for r in llm.records[before:]) == 2  # beside each other
    assert texts == [text(o) for o in llm.generate(prompts, params)]


def test_threads_may_share_one_llm(llm: LLM) -> None:
    prompts = [PROMPT, "def add(a, b):", "The sky is", "1, 2, 3,"]
    want = [text(o) for o in llm.generate(prompts, GREEDY)]
    got = dict.fromkeys(prompts, "")

    def work(prompt: str) -> None:
        got[prompt] = text(llm.generate(prompt, GREEDY)[0])

    workers = [threading.Thread(target=work, args=(p,)) for p in prompts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [got[p] for p in prompts] == want


def test_a_stop_string_cuts_the_text(llm: LLM) -> None:
    whole = text(llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=30))[0])
    stop = whole[10:14]
    output = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=30, stop=stop))[0]
    assert text(output) == whole[: whole.index(stop)]
    assert output.outputs[0].finish_reason == "stop"
    assert output.usage.completion_tokens < 30
    pieces = [
        c.text for c in llm.stream(PROMPT, SamplingParams(temperature=0, max_tokens=30, stop=stop))
    ]
    assert "".join(pieces) == text(output)


def test_a_stop_token_ends_the_answer_and_is_not_shown(llm: LLM) -> None:
    first = llm.generate(PROMPT, GREEDY)[0].outputs[0]
    third = first.token_ids[2]
    output = llm.generate(
        PROMPT, SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[third])
    )[0]
    assert output.outputs[0].token_ids == first.token_ids[:3]
    assert text(output) == llm.tokenizer.decode(first.token_ids[:2], continuation=True)


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


def test_bad_prompts_are_refused_in_one_line(llm: LLM) -> None:
    with pytest.raises(
        PromptTooLongError, match="the prompt has 1,025 tokens, the context holds 1,024"
    ):
        llm.generate([[5] * 1025], GREEDY)
    with pytest.raises(UsageError, match="the prompt is empty"):
        llm.generate("", GREEDY)
    with pytest.raises(UsageError, match="token id 49152: expected a whole number from 0 to 49151"):
        llm.generate([[1, 49152]], GREEDY)
    with pytest.raises(UsageError, match="2 params for 1 prompt: give one, or one each"):
        llm.generate(PROMPT, [GREEDY, GREEDY])
    assert llm.stats()["kv_blocks_used"] == 0


def test_a_prompt_that_is_too_long_is_told_what_helps(tiny_path: Path) -> None:
    whole = LLM(tiny_path, threads=1)
    for llm, size, advice in [
        (whole, 128, "shorten it, the model was trained for no more"),
        (LLM(tiny_path, threads=1, context=64), 64, "shorten it or load with a larger context"),
        (
            LLM(tiny_path, threads=1, kv_memory=3 * whole.info.block_bytes),
            96,
            "shorten it or raise kv_memory, which bounds the context",
        ),
    ]:
        said = f"the prompt has {size + 1} tokens, the context holds {size}: {advice}"
        with pytest.raises(PromptTooLongError, match=said):
            llm.generate([[5] * (size + 1)], GREEDY)


def test_a_prompt_that_is_much_too_long_is_refused_before_it_is_encoded(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1)
    text = "a" * 1_200_000  # a byte is a token, but the longest one stands for twelve
    messages = [{"role": "user", "content": text}]

    def never(text: str) -> list[int]:
        raise AssertionError

    monkeypatch.setattr(llm.tokenizer, "_encode_plain", never)
    least = r"the prompt has at least 100,00\d tokens, the context holds 128: shorten it"
    for ask in (
        lambda: llm.generate(text),
        lambda: llm.stream(text),
        lambda: llm.encode(text, parse_special=True),
        lambda: llm.chat(messages),
        lambda: llm.encode_chat(messages, parse_special=True),
    ):
        with pytest.raises(PromptTooLongError, match=least):
            ask()


def test_token_ids_of_numpy_are_token_ids(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1)
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    one, two = llm.generate(ids, GREEDY)
    assert (one.prompt_token_ids, two.prompt_token_ids) == ((1, 2, 3), (4, 5, 6))
    assert [type(t) for t in one.prompt_token_ids] == [int] * 3
    assert llm.generate(ids[0], GREEDY)[0].outputs == one.outputs
    assert llm.generate([list(ids[1])], GREEDY)[0].outputs == two.outputs
    assert llm.logits(ids[0]).shape == (3, 258)
    stops = SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[np.int64(257)])
    assert llm.generate(ids[0], stops)[0].outputs == one.outputs


def test_a_full_context_ends_with_length(llm: LLM) -> None:
    output = llm.generate([[5] * 1020], SamplingParams(temperature=0, ignore_eos=True))[0]
    assert output.usage.completion_tokens == 5  # the last token drawn needs no slot
    assert output.outputs[0].finish_reason == "length"


def test_options_are_checked_by_name_and_range(smollm2_path: Path) -> None:
    with pytest.raises(UsageError, match="context=100000: the model was trained for at most 8,192"):
        LLM(smollm2_path, context=100_000)
    with pytest.raises(UsageError, match="kv_dtype='int3'"):
        LLM(smollm2_path, kv_dtype="int3")
    with pytest.raises(
        OutOfMemoryError, match="a context of 8,192 tokens needs 188,743,680 bytes of KV"
    ):
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
    ]:
        with pytest.raises(UsageError, match=found):
            llm.generate(prompt, GREEDY)  # type: ignore[arg-type]
    for method in (llm.logits, llm.score):
        said = f"{method.__name__} takes a list of token ids, found str: encode"
        with pytest.raises(UsageError, match=said):
            method("abc")
        with pytest.raises(UsageError, match="token id 'a': expected a whole number"):
            method(["a"])
    for params in ({"max_tokens": 2}, "ab", [None], 5):
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.generate(PROMPT, params)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.stream(PROMPT, params)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="stop_token_ids has 49152: expected 0 to 49151"):
        llm.generate(PROMPT, SamplingParams(stop_token_ids=[7, 49152]))
    assert llm.stats()["kv_blocks_used"] == 0


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
    forward = llm.loop.engine.runner.forward

    def collecting(batch: Batch) -> StepOutput:
        gc.collect()
        return forward(batch)

    del lost
    monkeypatch.setattr(llm.loop.engine.runner, "forward", collecting)
    worker = threading.Thread(target=llm.generate, args=(PROMPT, GREEDY), daemon=True)
    worker.start()
    worker.join(timeout=60)
    assert not worker.is_alive()
    assert llm.stats()["kv_blocks_used"] == 0
    llm.loop.call(llm.loop.engine.check_integrity)


def test_a_temperature_too_small_for_a_float32_is_greedy(llm: LLM) -> None:
    tiny = llm.generate(PROMPT, SamplingParams(temperature=1e-300, max_tokens=12))[0]
    assert tiny.outputs == llm.generate(PROMPT, GREEDY)[0].outputs


def test_a_model_without_a_template_is_refused_for_chat_by_name(tmp_path: Path) -> None:
    llm = LLM(write_tiny_model(tmp_path / "plain.gguf", template=None), threads=1)
    with pytest.raises(UsageError, match=r"plain\.gguf has no chat template: .*--chat-template"):
        llm.chat([{"role": "user", "content": "hi"}])
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    params = SamplingParams(max_tokens=2)
    assert llm.chat([{"role": "user", "content": "hi"}], params, chat_template=template).outputs


def test_a_chat_may_give_its_content_in_parts_to_a_template_that_knows_none(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }};{% endfor %}"
    llm = LLM(write_tiny_model(tmp_path / "plain.gguf", template=template), threads=1)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    output = llm.chat([{"role": "user", "content": parts}], SamplingParams(max_tokens=2))
    assert llm.tokenizer.decode(output.prompt_token_ids) == "one\ntwo;"
    with pytest.raises(UsageError, match=r"messages\[0\]\.content: expected a string or a list"):
        llm.chat([{"role": "user", "contents": "hi"}])
    with pytest.raises(UsageError, match="leaves out what the user says"):
        llm.chat([{"role": "user", "content": "hi"}], chat_template="{{ bos_token }}hi")


def test_a_chat_answer_has_no_blank_of_spm_in_front(tmp_path: Path) -> None:
    more = spm_entries("{{ messages[-1].content }}")
    llm = LLM(write_tiny_model(tmp_path / "spm.gguf", more=more), threads=1)
    messages = [{"role": "user", "content": "hi"}]
    params = SamplingParams(temperature=0, max_tokens=4)
    raw = llm.generate("hi", params)[0]
    chat = llm.chat(messages, params)
    streamed = list(llm.chat_stream(messages, params))
    assert chat.prompt_token_ids == raw.prompt_token_ids
    assert raw.outputs[0].text == " " + chat.outputs[0].text
    assert "".join(c.text for c in streamed) == chat.outputs[0].text
    with pytest.raises(UsageError, match="begins_turn=1: expected True or False"):
        RequestOptions(begins_turn=1)  # type: ignore[arg-type]


def test_special_tokens_of_a_user_are_text_unless_asked_for(llm: LLM) -> None:
    messages = [{"role": "user", "content": "<|im_end|>"}]
    (end,) = llm.tokenizer.encode("<|im_end|>", parse_special=True)
    params = SamplingParams(max_tokens=1)
    plain = llm.chat(messages, params).prompt_token_ids
    parsed = llm.chat(messages, params, parse_special=True).prompt_token_ids
    assert parsed.count(end) == plain.count(end) + 1


def test_a_seed_of_zero_is_a_seed(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1)
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


def test_an_output_tells_what_its_draws_were_shaped_by(recommending: LLM, tiny_path: Path) -> None:
    params = SamplingParams(max_tokens=1, temperature=0.5)
    want = Sampling(temperature=0.5, top_k=1, repetition_penalty=1.75)
    output = recommending.generate([[1, 2]], params)[0]
    assert output.sampling == want
    assert output.to_dict()["sampling"] == asdict(want)
    again = SamplingParams(max_tokens=1, seed=output.seed, **asdict(want))
    assert LLM(tiny_path, threads=1).generate([[1, 2]], again)[0].outputs == output.outputs
    beams = SamplingParams(max_tokens=1, beam_width=2)
    assert recommending.generate([[1, 2]], beams)[0].sampling is None
    assert LLM(tiny_path, threads=1).generate([[1, 2]])[0].sampling == Sampling()


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


def test_metrics_and_records_are_of_the_clock(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only scheduling, for 2 s, and a forward, for 1 s, move."""
    llm = LLM(tiny_path, threads=1, block_size=16)
    now = [100.0]
    set_clock(llm.loop.engine, lambda: now[0])
    monkeypatch.setattr(llm.loop.engine.runner, "clock", lambda: now[0])
    slow_down(monkeypatch, llm.loop.engine.requests, "end_late", now, 2)
    slow_down(monkeypatch, llm.loop.engine.runner, "transfer", now, 1)
    params = SamplingParams(max_tokens=3, ignore_eos=True)
    metrics = llm.generate([list(range(40))], params)[0].metrics
    assert (metrics.ttft_ms, metrics.tpot_ms) == (3000, 3000)
    assert (metrics.prefill_tps, metrics.decode_tps) == (
        pytest.approx(40 / 3),
        pytest.approx(1 / 3),
    )
    assert metrics.kv_bytes == 3 * llm.info.block_bytes  # 42 tokens
    assert [(r.seconds, r.forward_seconds) for r in llm.records] == [(3, 1)] * 3


def slow_down(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, now: list[float], seconds: float
) -> None:
    """Let a method take so long on the clock `now`."""
    method = getattr(owner, name)

    def slow(*arguments: object) -> object:
        now[0] += seconds
        return method(*arguments)

    monkeypatch.setattr(owner, name, slow)


def test_a_record_counts_every_sequence_of_its_step(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1)
    llm.generate([[1, 2, 3, 4, 5], [6, 7, 8]], SamplingParams(max_tokens=3, ignore_eos=True))
    counts = [
        (r.step, r.num_requests, r.computed_tokens, r.kv_read_tokens, r.output_rows)
        for r in llm.records
    ]
    assert counts == [(0, 2, 8, 0, 2), (1, 2, 2, 8, 2), (2, 2, 2, 10, 2)]
    assert {r.kv_blocks_used for r in llm.records} == {2}


def test_a_prompt_that_fills_the_pool_has_logits_and_scores(tiny_path: Path) -> None:
    whole = LLM(tiny_path, threads=1)
    small = LLM(tiny_path, threads=1, kv_memory="16K", max_num_seqs=1, max_batch_tokens=7)
    assert small.info.kv_blocks == 2
    ids = [i * 7 % 258 for i in range(64)]
    assert np.array_equal(small.logits(ids), whole.logits(ids))
    assert np.array_equal(small.score(ids), whole.score(ids))


def test_logits_too_large_for_memory_are_refused(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.serving.llm._LOGITS_LIMIT", 10 * 258 * 4)
    llm = LLM(tiny_path, threads=1)
    assert llm.logits([1] * 10).shape == (10, 258)
    with pytest.raises(UsageError, match="logits of 11 tokens take 11,352 bytes: at most 10"):
        llm.logits([1] * 11)


def test_without_a_cache_a_sequence_may_be_longer_than_a_steps_rows(tiny_path: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    cached = LLM(tiny_path, threads=1, max_batch_tokens=8)
    uncached = LLM(tiny_path, threads=1, max_batch_tokens=8, kv_cache=False)
    prompt = list(range(30))
    want = cached.generate([prompt], params)[0].outputs
    assert uncached.generate([prompt], params)[0].outputs == want
    assert [r.computed_tokens for r in cached.records] == [8, 8, 8, 6, 1, 1, 1]
    assert [r.computed_tokens for r in uncached.records] == [30, 31, 32, 33]
