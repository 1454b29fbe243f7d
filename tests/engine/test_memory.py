"""How many KV blocks a budget gives, and what the machine says is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.config import EngineConfig
from octavo.engine import memory
from octavo.engine.memory import MemoryPlan, available_memory, plan_memory
from octavo.errors import OutOfMemoryError
from octavo.model import llama
from tests.tiny import TINY

PROGRAM = llama.build(TINY)
BLOCK = 32 * 2 * (2 * 32 * 2) * 2  # tokens x layers x (kv_heads x dim of K and of V) x bf16


def plan(**options: object) -> MemoryPlan:
    return plan_memory(EngineConfig.parse(options), PROGRAM, model_context=1024)


def test_a_budget_gives_whole_blocks_up_to_what_every_sequence_could_hold() -> None:
    assert plan(kv_memory=10 * BLOCK + 1) == MemoryPlan(320, 10, BLOCK)
    assert plan(kv_memory=40 * BLOCK) == MemoryPlan(1024, 40, BLOCK)
    assert plan(kv_memory=40 * BLOCK, context=100) == MemoryPlan(100, 40, BLOCK)
    assert plan(kv_memory=40 * BLOCK, context=100, max_num_seqs=2) == MemoryPlan(100, 8, BLOCK)


def test_a_context_that_was_asked_for_is_never_clamped() -> None:
    assert plan(kv_memory=4 * BLOCK, context=128) == MemoryPlan(128, 4, BLOCK)
    needs = f"context of 129 tokens needs {5 * BLOCK:,} bytes .* is {4 * BLOCK:,}:"
    with pytest.raises(OutOfMemoryError, match=needs):
        plan(kv_memory=4 * BLOCK, context=129)
    takes = f"takes {BLOCK:,} bytes, the budget is {BLOCK - 1:,}:"
    with pytest.raises(OutOfMemoryError, match=takes):
        plan(kv_memory=BLOCK - 1)


def test_without_a_budget_half_of_what_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 20 * BLOCK)
    assert plan() == MemoryPlan(320, 10, BLOCK)


@pytest.mark.parametrize(
    ("limits", "free"),
    [
        ({}, 5120),
        ({"a/b": ("max", 1)}, 5120),
        ({"a/b": ("4000", 1000)}, 3000),
        ({"a/b": ("4000", 1000), "a": ("2000", 1500)}, 500),  # every folder above holds too
        ({"a": ("1000", 1200)}, 0),
        ({"other": ("1", 0)}, 5120),
    ],
)
def test_a_cgroup_leaves_its_limit_less_its_use(
    limits: dict[str, tuple[str, int]], free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemFree: 3 kB\nMemAvailable: 5 kB\n",
        "/proc/self/cgroup": "0::/a/b\n",
    }
    for folder, (limit, used) in limits.items():
        files[f"/sys/fs/cgroup/{folder}/memory.max"] = f"{limit}\n"
        files[f"/sys/fs/cgroup/{folder}/memory.current"] = f"{used}\n"

    def read_text(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert available_memory() == free
