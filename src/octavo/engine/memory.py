"""Memory plan: how many KV blocks a model gets, and the context they hold. Decided before weights
are read.

Knows sizes and limits of the machine; reserves nothing itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from octavo.config import EngineConfig
from octavo.engine.runner import kv_layout
from octavo.errors import OutOfMemoryError, UsageError, counted
from octavo.program.ops import Program

_SHARE_OF_FREE = 0.5  # of what is available, when kv_memory does not say


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    context: int  # tokens
    num_blocks: int
    block_bytes: int  # over all layer groups


def plan_memory(config: EngineConfig, program: Program, model_context: int) -> MemoryPlan:
    """Raises with both numbers if the context asked for is beyond the model or the budget."""
    if config.context is not None and config.context > model_context:
        raise UsageError(
            f"context={config.context}: the model was trained for at most "
            f"{counted(model_context, 'token')}"
        )
    block = sum(kv_layout(program, g, config).block_stride for g in range(len(program.groups)))
    wanted = config.context or model_context
    needed = -(-wanted // config.block_size)
    budget = config.kv_memory or int(available_memory() * _SHARE_OF_FREE)
    # More than every sequence at its longest could never be used.
    num_blocks = min(budget // block, needed * config.max_num_seqs)
    if num_blocks < needed and config.context is not None:
        raise OutOfMemoryError(
            f"a context of {counted(wanted, 'token')} needs {needed * block:,} bytes of KV, "
            f"the budget is {budget:,}: lower context or raise kv_memory"
        )
    if num_blocks < 1:
        raise OutOfMemoryError(
            f"one KV block takes {block:,} bytes, the budget is {budget:,}: raise kv_memory"
        )
    return MemoryPlan(min(wanted, num_blocks * config.block_size), num_blocks, block)


def available_memory() -> int:
    """Bytes this process may still take: what the system has free, or less where a cgroup says
    so."""
    return min(_system_available(), _cgroup_available())


def _system_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cgroup_available() -> int:
    """Limit less use, of the tightest cgroup above this process (v2); no limit counts as 2**62."""
    best = 2**62
    try:
        entry = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1]
        folder = Path("/sys/fs/cgroup") / entry.split("::", 1)[1].lstrip("/")
    except (OSError, IndexError):
        return best
    for path in (folder, *folder.parents):
        if not path.is_relative_to("/sys/fs/cgroup"):
            break
        try:
            limit = (path / "memory.max").read_text().strip()
            used = int((path / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        if limit != "max":
            best = min(best, max(0, int(limit) - used))
    return best
