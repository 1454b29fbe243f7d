"""The offline API's shared blocks: what a request finds of others, answers beside each other,
beams, options, and memory that goes back."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from octavo.errors import KernelError, UsageError
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import RequestOptions, RequestOutput
from tests.cli.tiny_model import write_tiny_model
from tests.tiny import set_clock

PROMPT = list(range(40))
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def llm(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1)


def computed(llm: LLM, since: int = 0) -> list[int]:
    return [r.computed_tokens for r in llm.records[since:]]


def tokens(output: RequestOutput) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in output.outputs]


def nothing_is_left(llm: LLM) -> None:
    assert llm.stats()["kv_blocks_used"] == 0
    assert llm.loop.num_open == 0
    llm.loop.call(llm.loop.engine.check_integrity)


# What a request finds.


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
    nothing_is_left(llm)


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


@pytest.mark.parametrize("option", ["prefix_cache", "kv_cache"])
def test_without_a_cache_nothing_is_found_and_the_answer_is_the_same(
    tiny_path: Path, llm: LLM, option: str
) -> None:
    without = LLM(tiny_path, threads=1, **{option: False})
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
    nothing_is_left(llm)


def test_prompts_offered_together_compute_what_they_share_once(llm: LLM) -> None:
    shared = [i * 5 % 250 for i in range(64)]
    prompts = [[*shared, i] for i in range(8)]
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=1))
    assert sum(computed(llm)) == 65 + 7
    assert [o.usage.cached_tokens for o in outputs] == [0] + 7 * [64]


def test_a_stream_that_is_given_up_leaves_its_tokens_to_others(llm: LLM) -> None:
    stream = llm.stream(PROMPT, SamplingParams(temperature=0, max_tokens=50, ignore_eos=True))
    drawn = [token for _ in range(4) for token in next(stream).token_ids]
    stream.close()
    nothing_is_left(llm)
    before = len(llm.records)
    output = llm.generate([[*PROMPT, *drawn]], GREEDY)[0]
    assert (len(drawn), output.cache.matched_tokens) == (4, 43)  # the last was never computed
    assert computed(llm, before)[0] == 1


# Several answers, and beams.


def test_answers_beside_each_other_share_the_prompt(llm: LLM) -> None:
    params = SamplingParams(n=4, seed=3, max_tokens=6, ignore_eos=True)
    output = llm.generate(PROMPT, params)[0]
    assert computed(llm) == [40] + 5 * [4]
    assert len(set(tokens(output))) == 4
    assert output.usage.completion_tokens == 24
    assert output.metrics.kv_bytes == 5 * llm.info.block_bytes  # one whole, four of their own
    alone = SamplingParams(seed=3, max_tokens=6, ignore_eos=True)
    assert llm.generate(PROMPT, alone)[0].outputs == output.outputs[:1]
    nothing_is_left(llm)


def test_many_long_answers_may_take_more_blocks_than_one_context_has(llm: LLM) -> None:
    """Once a request was held to the blocks of one context, whatever the pool had."""
    output = llm.generate(PROMPT, SamplingParams(n=16, seed=3, ignore_eos=True))[0]
    assert output.usage.completion_tokens == 16 * (128 - 40 + 1)
    assert output.metrics.kv_bytes == (1 + 16 * 3) * llm.info.block_bytes
    nothing_is_left(llm)


def test_pieces_of_several_answers_name_theirs(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=3, max_tokens=6, ignore_eos=True)
    drawn: list[tuple[int, ...]] = [(), (), ()]
    for chunk in llm.stream(PROMPT, params):
        drawn[chunk.index] += chunk.token_ids
    assert chunk.output is not None
    assert drawn == tokens(chunk.output) == tokens(llm.generate(PROMPT, params)[0])


def test_one_beam_is_greedy_and_its_score_is_the_sum_of_its_log_probabilities(llm: LLM) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=0)
    want = llm.generate(PROMPT, greedy)[0].outputs[0]
    beam = SamplingParams(beam_width=1, max_tokens=8, ignore_eos=True)
    found = llm.generate(PROMPT, beam)[0].outputs[0]
    assert want.logprobs is not None
    assert found.token_ids == want.token_ids
    assert found.cumulative_logprob == pytest.approx(
        sum(t.logprob for t in want.logprobs), abs=1e-4
    )


def test_beams_find_answers_at_least_as_likely_best_first(llm: LLM) -> None:
    params = SamplingParams(beam_width=4, n=3, max_tokens=8, ignore_eos=True)
    output = llm.generate(PROMPT, params)[0]
    scores = [a.cumulative_logprob or 0.0 for a in output.outputs]
    assert scores == sorted(scores, reverse=True)
    assert len(set(tokens(output))) == 3
    for answer, score in zip(output.outputs, scores, strict=True):
        exact = llm.score([*PROMPT, *answer.token_ids])[39:].sum()
        assert score == pytest.approx(float(exact), abs=1e-3)
    one = SamplingParams(beam_width=1, max_tokens=8, ignore_eos=True)
    assert scores[0] >= (llm.generate(PROMPT, one)[0].outputs[0].cumulative_logprob or 0.0)
    with pytest.raises(UsageError, match="beam_width: beams cannot be streamed; use generate"):
        llm.stream(PROMPT, params)
    nothing_is_left(llm)


def test_log_probabilities_of_a_prompt_are_its_scores_and_need_every_row(llm: LLM) -> None:
    plain = llm.generate(PROMPT, GREEDY)[0]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, prompt_logprobs=2)
    output = llm.generate(PROMPT, params)[0]
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


# Order, errors and options.


def lengths(*counts: int) -> list[SamplingParams]:
    return [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in counts]


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
    nothing_is_left(llm)


def fail_for(
    monkeypatch: pytest.MonkeyPatch, llm: LLM, prompt: Sequence[int], error: Exception
) -> None:
    draw = llm.loop.engine.drawing.draw

    def failing(branch, *arguments):  # type: ignore[no-untyped-def]
        if branch.request.prompt_token_ids == tuple(prompt):
            raise error
        return draw(branch, *arguments)

    monkeypatch.setattr(llm.loop.engine.drawing, "draw", failing)


def test_an_answer_that_fails_harms_no_other(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(seed=1, max_tokens=4, ignore_eos=True)
    prompts = [[1, 2], [3, 4], [5, 6]]
    want = llm.generate(prompts, params)
    error = KernelError("the head gave no numbers")
    fail_for(monkeypatch, llm, [3, 4], error)
    found = list(llm.as_completed(prompts, params))
    assert [index for index, _ in found] == [1, 0, 2]
    outputs = [output for _, output in sorted(found, key=lambda f: f[0])]
    assert [o.error for o in outputs] == [None, "the head gave no numbers", None]
    assert (outputs[1].outputs[0].finish_reason, tokens(outputs[1])) == ("error", [()])
    assert [outputs[i].outputs for i in (0, 2)] == [want[i].outputs for i in (0, 2)]
    nothing_is_left(llm)


def test_generate_and_streams_raise_what_failed(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(seed=1, max_tokens=4, ignore_eos=True)
    fail_for(monkeypatch, llm, [3, 4], KernelError("the head gave no numbers"))
    with pytest.raises(KernelError, match="no numbers"):
        llm.generate([[1, 2], [3, 4]], params)
    nothing_is_left(llm)
    with pytest.raises(KernelError, match="no numbers"):
        list(llm.stream([3, 4], params))
    nothing_is_left(llm)
    assert len(llm.generate([1, 2], params)[0].outputs[0].token_ids) == 4


def test_a_bad_prompt_among_good_ones_starts_nothing(llm: LLM) -> None:
    with pytest.raises(UsageError, match="token id 999"):
        llm.generate([[1, 2], [999]], GREEDY)
    with pytest.raises(UsageError, match="options: expected RequestOptions, found dict"):
        llm.generate([1, 2], GREEDY, {"priority": 1})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="2 options for 1 prompt"):
        llm.generate([1, 2], GREEDY, [RequestOptions()] * 2)
    assert llm.records == []
    nothing_is_left(llm)


def test_a_deadline_ends_an_answer_with_what_it_has(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves by a second with every forward."""
    now, forward = [0.0], llm.loop.engine.runner.forward

    def slow(plan):  # type: ignore[no-untyped-def]
        now[0] += 1
        return forward(plan)

    set_clock(llm.loop.engine, lambda: now[0])
    monkeypatch.setattr(llm.loop.engine.runner, "forward", slow)
    late, other = llm.generate(
        [[1, 2], [3, 4]], GREEDY, [RequestOptions(deadline_ms=2500), OPTIONS]
    )
    assert late.outputs[0].finish_reason == "deadline"
    assert late.outputs[0].token_ids == llm.generate([1, 2], GREEDY)[0].outputs[0].token_ids[:3]
    assert (other.outputs[0].finish_reason, len(other.outputs[0].token_ids)) == ("length", 8)
    nothing_is_left(llm)


OPTIONS = RequestOptions()


def test_a_lower_priority_number_runs_first(tiny_path: Path) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    options = [RequestOptions(priority=p) for p in (3, -1, 2)]
    done = llm.as_completed([[1, 2], [3, 4], [5, 6]], GREEDY, options)
    assert [index for index, _ in done] == [1, 2, 0]


def test_stats_have_names(llm: LLM) -> None:
    assert llm.stats()["step_seconds_p95"] is None  # nothing ran
    llm.generate([PROMPT] * 2, GREEDY)
    stats = llm.stats()
    assert list(stats) == [
        *("steps", "computed_tokens", "kv_read_tokens", "preempted"),
        *("step_seconds", "step_seconds_p95", "forward_seconds", "running", "waiting"),
        *("kv_blocks_total", "kv_blocks_used", "kv_blocks_kept"),
        *("kv_blocks_evicted", "kv_blocks_copied", "kv_waste"),
        *("kv_block_bytes", "weight_bytes", "context"),
    ]
    assert stats["steps"] == len(llm.records)
    assert stats["computed_tokens"] == sum(computed(llm))
    assert stats["kv_blocks_total"] == llm.info.kv_blocks
    assert stats["kv_blocks_kept"] == 2
    assert 0 < stats["kv_waste"] < 1  # type: ignore[operator]
    assert 0 < stats["step_seconds_p95"] <= stats["step_seconds"]  # type: ignore[operator]


# Memory.


def resident() -> int:
    """Bytes of this process that are in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_without_idle_time_memory_goes_back_at_the_end_of_a_request(smollm2_path: Path) -> None:
    """A prompt of 700 tokens takes 22 blocks of 720 KiB."""
    llm = LLM(smollm2_path, threads=2, context=1024, kv_idle=0)
    llm.generate([[5] * 200], GREEDY)  # what a first run touches beside the pages
    prompt = [i * 7 % 49152 for i in range(700)]
    stream = llm.stream(prompt, GREEDY)
    next(stream)
    held = llm.stats()["kv_blocks_used"]
    assert held == 22
    during = resident()
    list(stream)
    given_back = during - resident()
    assert given_back > 0.9 * 22 * llm.info.block_bytes
    assert llm.stats()["kv_blocks_kept"] == 0
    again = llm.generate([prompt], GREEDY)[0]
    assert (again.cache.matched_tokens, again.cache.reason) == (0, CacheReason.EVICTED)


def test_many_requests_and_a_dropped_llm_leave_no_thread(tiny_path: Path) -> None:
    before = set(threading.enumerate())
    llm = LLM(tiny_path, threads=1)
    for i in range(20):
        llm.generate([[i, 2, 3]], SamplingParams(max_tokens=1))
    (thread,) = set(threading.enumerate()) - before
    gone = weakref.ref(llm)
    del llm
    gc.collect()
    assert gone() is None  # a thread that sleeps keeps nothing alive
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert not set(threading.enumerate()) - before


def test_a_chat_takes_the_options_of_a_request(llm: LLM) -> None:
    messages = [{"role": "user", "content": "Whose tokens are these?"}]
    mine, yours = RequestOptions(cache_salt="me"), RequestOptions(cache_salt="you")
    short = SamplingParams(temperature=0, max_tokens=2)
    first = llm.chat(messages, short, mine)
    *_, again = llm.chat_stream(messages, short, mine)
    assert again.output is not None
    assert again.output.cache.matched_tokens == first.usage.prompt_tokens - 1
    assert llm.chat(messages, short, yours).cache.reason is CacheReason.SALT
