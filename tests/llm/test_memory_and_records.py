"""What the offline API says of its steps and its memory, and that memory and threads go back."""

from __future__ import annotations

import gc
import resource
import threading
import weakref
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from octavo.records import CacheReason
from octavo.serving.stats import engine_stats
from tests.gate import Gate
from tests.serving.stories import GREEDY, PROMPT, computed, slow_down
from tests.tiny import set_clock


def test_stats_have_names(llm: LLM) -> None:
    assert llm.stats()["step_seconds_p95"] is None  # nothing ran
    llm.generate([PROMPT] * 2, GREEDY)
    stats = llm.stats()
    assert list(stats) == [
        *("steps", "computed_tokens", "kv_read_tokens", "preempted"),
        *("step_seconds", "step_seconds_p95", "forward_seconds", "running", "waiting"),
        *("kv_blocks_total", "kv_blocks_used", "kv_blocks_kept", "kv_blocks_pinned"),
        *("kv_blocks_evicted", "kv_blocks_copied"),
        *("kv_bytes_used", "kv_bytes_kept", "kv_bytes_empty"),
        *("kv_waste", "kv_block_bytes", "weight_bytes", "context"),
        "sliding_context",
    ]
    assert stats["steps"] == len(llm.records)
    assert stats["computed_tokens"] == sum(computed(llm))
    assert stats["kv_blocks_total"] == llm.info.kv_blocks
    assert stats["kv_blocks_kept"] == 2
    assert 0 < stats["kv_waste"] < 1  # type: ignore[operator]
    assert 0 < stats["step_seconds_p95"] <= stats["step_seconds"]  # type: ignore[operator]


def resident() -> int:
    """Bytes of this process that are in memory."""
    _, pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(pages) * resource.getpagesize()


def test_without_idle_time_memory_goes_back_at_the_end_of_a_request(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 700 tokens takes 22 blocks of 720 KiB."""
    llm = LLM(
        smollm2_path, threads=2, context=1024, kv_idle=0, max_batch_tokens=1024, step_ms=inf
    )  # whose prompts run in one step
    llm.generate([[5] * 200], GREEDY)  # what a first run touches beside the pages
    prompt = [i * 7 % 49152 for i in range(700)]
    gate = Gate(llm, monkeypatch)
    gate.let_one_pass()
    stream = llm.stream(prompt, GREEDY)
    next(stream)
    for _ in range(2):
        gate.wait()  # until its second step
    assert engine_stats(llm.loop.engine, llm.info)["kv_blocks_used"] == 22
    during = resident()
    gate.open()
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
    assert metrics.prefill_tps == pytest.approx(40 / 3)
    assert metrics.decode_tps == pytest.approx(1 / 3)
    assert metrics.kv_bytes == 3 * llm.info.block_bytes  # 42 tokens
    assert [(r.seconds, r.forward_seconds) for r in llm.records] == [(3, 1)] * 3


def test_a_record_counts_every_sequence_of_its_step(llm: LLM) -> None:
    llm.generate([[1, 2, 3, 4, 5], [6, 7, 8]], SamplingParams(max_tokens=3, ignore_eos=True))
    counts = [
        (r.step, r.num_requests, r.computed_tokens, r.kv_read_tokens, r.output_rows)
        for r in llm.records
    ]
    assert counts == [(0, 2, 8, 0, 2), (1, 2, 2, 8, 2), (2, 2, 2, 10, 2)]
    assert {r.kv_blocks_used for r in llm.records} == {2}


def test_without_a_cache_a_sequence_may_be_longer_than_a_steps_rows(tiny_path: Path) -> None:
    params = replace(GREEDY, max_tokens=4)
    cached = LLM(tiny_path, threads=1, max_batch_tokens=8)
    uncached = LLM(tiny_path, threads=1, max_batch_tokens=8, kv_cache=False)
    prompt = list(range(30))
    want = cached.generate([prompt], params)[0].outputs
    assert uncached.generate([prompt], params)[0].outputs == want
    assert [r.computed_tokens for r in cached.records] == [8, 8, 8, 6, 1, 1, 1]
    assert [r.computed_tokens for r in uncached.records] == [30, 31, 32, 33]
