"""The machine's limit of a workload, counted: against sums over steps that are spelled out."""

from __future__ import annotations

import pytest

from benchmarks.peer.limits import Limit, limit, sizes_of
from benchmarks.synthetic_gguf import write_model
from octavo.bench.machine import Reading
from octavo.bench.workloads import Sizes
from octavo.weights.model_header import read_header
from tests.benchmarks.peer.fakes import BATCH, CHAT, DECODE, EVERY, PROMPT, SHARED

MEMORY_ONLY = Reading(bytes_per_second=1.0, ops_per_second=float("inf"))
KV = 4 * 2 * 2 * 64 * 2  # bytes of a token: layers, K and V, heads, values, bf16


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    return sizes_of(read_header(write_model("tiny", "Q8_0", tmp_path_factory.mktemp("model"))))


def seconds(found: Limit) -> float:
    return found.tokens / found.speed(MEMORY_ONLY)


def test_every_workload_has_one(sizes: Sizes) -> None:
    for work in EVERY:
        assert 0 < limit(sizes, work).speed(Reading(1e9, 1e11)) < 1e9


def test_streams_share_the_weights_and_nothing_else(sizes: Sizes) -> None:
    alone, three = seconds(limit(sizes, DECODE)), seconds(limit(sizes, BATCH))
    weights = sum(sizes.weight_bytes.values())
    # After 8 tokens to 11: a step reads what was before, and writes its own.
    kv = KV * sum(past + 1 for past in range(8, 11)) / 3
    assert alone == pytest.approx(weights + kv, rel=0.01)
    assert three == pytest.approx(weights / 3 + kv, rel=0.01)


def test_answers_end_one_after_the_other(sizes: Sizes) -> None:
    """Prompts in one forward, then a step each for tokens 2 (of three requests), 3 (of two), 4."""
    weights = sum(sizes.weight_bytes.values())
    assert seconds(limit(sizes, CHAT)) == pytest.approx(4 * weights, rel=0.05)


def test_what_is_shared_is_computed_once(sizes: Sizes) -> None:
    compute_only = Reading(float("inf"), 1.0)
    shared, rows = limit(sizes, SHARED).phases[0], (9 - 6) * 2 + 6
    whole = limit(sizes, PROMPT)
    a_row = 1 / whole.speed(compute_only)
    assert shared.ops_per_token == pytest.approx(rows * a_row, rel=0.15)  # attention and heads
