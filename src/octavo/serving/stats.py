"""The figures that `stats()` gives: counts over the kept step records, and the pool as it is."""

from __future__ import annotations

from octavo.engine.engine import Engine
from octavo.loaded_model import ModelInfo


def engine_stats(engine: Engine, info: ModelInfo) -> dict[str, object]:
    """Count and sum; bytes and seconds. Another thread may step the engine meanwhile."""
    records = list(engine.records)
    steps = sorted(r.seconds for r in records)
    slots = sum(r.kv_blocks_used for r in records) * info.block_size
    return {
        "steps": len(records),
        "computed_tokens": sum(r.computed_tokens for r in records),
        "kv_read_tokens": sum(r.kv_read_tokens for r in records),
        "preempted": sum(r.num_preempted for r in records),
        "step_seconds": sum(steps),
        "step_seconds_p95": steps[int(len(steps) * 0.95)] if steps else None,
        "forward_seconds": sum(r.forward_seconds for r in records),
        **engine.counts(),
        "kv_waste": sum(r.kv_slots_unfilled for r in records) / slots if slots else 0.0,
        "kv_block_bytes": info.block_bytes,
        "weight_bytes": info.weight_bytes,
        "context": info.context,
        "sliding_context": info.sliding_context,
    }
