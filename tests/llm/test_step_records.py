"""What the offline API records of its steps, and the metrics made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from tests.serving.stories import GREEDY
from tests.tiny import set_clock


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


def slow_down(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, now: list[float], seconds: float
) -> None:
    """Let a method take so long on the clock `now`."""
    method = getattr(owner, name)

    def slow(*arguments: object) -> object:
        now[0] += seconds
        return method(*arguments)

    monkeypatch.setattr(owner, name, slow)


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
