"""What K and V take of the process's memory: what the blocks are counted to take, and without the
prefix cache no more than a request holds at once, wherever its windows are."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from octavo.engine.engine import Engine
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.engine.tiny_engine import answered, tiny_engine
from tests.exactness.programs import Grouped, build
from tests.tiny import random_model

POOL = native.ThreadPool(2)
# 8 KiB of K and V a token and layer: one of all tokens, two of windows.
GROUPS = KVSpec(16, 64, 64), KVSpec(16, 64, 64, window=64), KVSpec(16, 64, 64, window=48)
MODEL = random_model(build(Grouped(GROUPS, 3, 40, queries=1)), POOL, type=GGMLType.Q8_0)
CHUNK = 64
OTHER = 2**20  # bytes that the process may take beside, or give back


def resident() -> int:
    """Bytes of this process that are in memory."""
    _, pages, *_ = Path("/proc/self/statm").read_text().split()
    return int(pages) * resource.getpagesize()


def kv_memory(engine: Engine) -> int:
    counts = engine.counts()
    return sum(counts[f"kv_bytes_{state}"] for state in ("used", "kept", "empty"))


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_the_process_grows_by_what_blocks_are_counted_to_take(prefix_cache: bool) -> None:
    engine = tiny_engine(
        MODEL, POOL, num_blocks=64, max_rows=CHUNK, context=2048, kv_dtype="f32", step_ms=None,
        prefix_cache=prefix_cache,
    )  # fmt: skip
    answered(engine, [5] * CHUNK, max_tokens=2)  # what a first run touches beside the pages
    counted, before = kv_memory(engine), resident()
    prompt = [i * i % 39 + 1 for i in range(24 * CHUNK)]
    request = answered(engine, prompt, max_tokens=100, ignore_eos=True)
    grown, counted = resident() - before, kv_memory(engine) - counted
    assert abs(grown - counted) < 0.05 * counted + OTHER
    # All of one layer, and of the others their window, and what a step writes.
    assert request.peak_bytes < 1.2 * (len(prompt) + 100) * 8192
    if prefix_cache:
        assert kv_memory(engine) > 2 * request.peak_bytes
        assert engine.counts()["kv_bytes_empty"] == 0
    else:
        assert request.peak_bytes <= kv_memory(engine) < 1.05 * request.peak_bytes
        assert engine.counts()["kv_bytes_kept"] == 0
