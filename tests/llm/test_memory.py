"""What the offline API says it holds, and memory and threads that go back."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

from octavo import LLM, SamplingParams
from octavo.records import CacheReason
from tests.serving.stories import GREEDY, PROMPT, computed


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
