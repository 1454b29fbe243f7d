"""The parts of an engine put together, over anything that runs plans: a Runner, or what tests, the
simulator and benchmarks set in its place."""

from __future__ import annotations

import time
from collections.abc import Callable

from octavo.config import EngineConfig, Eviction
from octavo.engine.engine import Engine
from octavo.engine.runner import Forward
from octavo.engine.step_budget import StepBudget
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.planning.memory import page_formats
from octavo.program.program import Program
from octavo.records import BlockEvent


def make_engine(
    runner: Forward,
    program: Program,
    config: EngineConfig,
    namespace: Namespace,
    *,
    context: int,
    eos_ids: frozenset[int] = frozenset(),
    weight_bytes: float,
    clock: Callable[[], float] = time.monotonic,
    on_event: Callable[[BlockEvent], None] | None = None,
) -> Engine:
    """`context`: tokens of the longest sequence; `weight_bytes` are those one forward reads.
    `on_event` is told of each change of a KV block."""
    budget = StepBudget(
        program,
        formats=page_formats(program, config),
        weight_bytes=weight_bytes,
        target_seconds=None if config.step_ms is None else config.step_ms / 1e3,
        max_rows=runner.max_rows,
        min_chunk=min(32, runner.max_rows),
    )
    kv = KVCache(
        runner.groups,
        block_size=config.block_size,
        budget=runner.kv_budget,
        max_rows=runner.max_rows,
        order=_order(config.eviction),
        cost=budget.units,
        clock=clock,
        on_event=on_event,
    )
    return Engine(
        runner, kv, budget, config, namespace, context=context, eos_ids=eos_ids, clock=clock
    )


def _order(eviction: Eviction) -> EvictionOrder:
    if eviction == "lru":
        return LeastRecentlyUsed()
    from octavo.kv_cache.cost_aware import CostAware  # few ask for it: no start waits

    return CostAware()
