"""Memory plan: how many KV blocks a model gets, and the context they hold. Decided before weights
are read.

Knows sizes and what is available; reserves nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.config import EngineConfig, check_context
from octavo.engine.available_memory import available_memory
from octavo.engine.runner import kv_layout
from octavo.errors import OutOfMemoryError, counted
from octavo.program.ops import Program

_SHARE_OF_FREE = 0.5  # of what the weights leave, when kv_memory does not say
# Blocks beyond what every sequence at its longest takes, when kv_memory does not say: they keep
# prefixes. A tiny model could have millions, whose bookkeeping every start would wait for.
_FOR_PREFIXES = 2**14


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    context: int  # tokens
    num_blocks: int
    block_bytes: int  # over all layer groups


def plan_memory(
    config: EngineConfig, program: Program, model_context: int, *, weight_bytes: int
) -> MemoryPlan:
    """Raises with both numbers if the context asked for is beyond the model or the budget, and if
    the budget, or the weights, are beyond what there is."""
    check_context(config.context, model_context)
    block = sum(kv_layout(program, g, config).block_stride for g in range(len(program.groups)))
    wanted = config.context or model_context
    needed = -(-wanted // config.block_size)
    room = _room_beside(weight_bytes)
    budget = int(room * _SHARE_OF_FREE) if config.kv_memory is None else config.kv_memory
    if budget > room:
        raise OutOfMemoryError(
            f"kv_memory asks for {budget:,} bytes, and beside {weight_bytes:,} bytes of weights "
            f"this process may take {room:,}: lower kv_memory, free memory, or raise its limit"
        )
    num_blocks = budget // block
    if config.kv_memory is None:
        num_blocks = min(num_blocks, needed * config.max_num_seqs + _FOR_PREFIXES)
    if num_blocks < needed and config.context is not None:
        raise OutOfMemoryError(
            f"a context of {counted(wanted, 'token')} needs {needed * block:,} bytes of KV, "
            f"the budget is {budget:,}: lower context or {_way_to(needed * block, room)}"
        )
    if num_blocks < 1:
        raise OutOfMemoryError(
            f"one KV block takes {block:,} bytes, the budget is {budget:,}: {_way_to(block, room)}"
        )
    return MemoryPlan(min(wanted, num_blocks * config.block_size), num_blocks, block)


def _way_to(budget: int, room: int) -> str:
    """What gives the KV pages so many bytes, where a budget may be as large as `room`."""
    return "raise kv_memory" if budget <= room else "free memory"


def _room_beside(weight_bytes: int) -> int:
    available = available_memory()
    if weight_bytes >= available:
        raise OutOfMemoryError(
            f"the weights take {weight_bytes:,} bytes, and this process may take {available:,}: "
            "free memory, raise its limit, or run a smaller model"
        )
    return available - weight_bytes
