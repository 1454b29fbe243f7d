"""Memory plan: how many KV blocks a model gets, and the context they hold. Decided before weights
are read.

Comes in: sizes, and what is available. Goes out: a MemoryPlan. `KVPages` is how bytes of K and V
are counted by all who count them: the engine, `octavo plan`, a server. Reserves nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from octavo.config import EngineConfig, check_context
from octavo.errors import OutOfMemoryError, counted
from octavo.program.cost import RowFormat, kv_bytes_by_group
from octavo.program.ops import Program

_PAGE = 4096  # bytes of the system's memory; a block of K and V is whole pages of it
_SHARE_OF_FREE = 0.5  # of what the weights leave, when kv_memory does not say
# Blocks beyond what every sequence at its longest takes, when kv_memory does not say: they keep
# prefixes. A tiny model could have millions, whose bookkeeping every start would wait for.
_FOR_PREFIXES = 2**14


@dataclass(frozen=True, slots=True)
class KVPages:
    """The blocks that K and V lie in: one of every layer group for each `block_size` tokens."""

    block_size: int  # tokens
    group_block_bytes: tuple[int, ...]  # of one block, by layer group

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in every layer group."""
        return sum(self.group_block_bytes)

    def bytes_of(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens holds: its last block is whole too."""
        return -(-tokens // self.block_size) * self.block_bytes

    def blocks_in(self, nbytes: float) -> int:
        return int(nbytes // self.block_bytes)

    def tokens_in(self, nbytes: float) -> int:
        """Tokens of the longest sequence that so many bytes hold."""
        return self.blocks_in(nbytes) * self.block_size


def kv_pages(
    program: Program, block_size: int, k_format: RowFormat, v_format: RowFormat
) -> KVPages:
    """The pages of a program whose K and V have these formats."""
    tokens = kv_bytes_by_group(program, k_format, v_format)
    return KVPages(block_size, tuple(ceil(block_size * each / _PAGE) * _PAGE for each in tokens))


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    context: int  # tokens
    budget: int  # bytes that the blocks of all layer groups share
    pages: KVPages

    @property
    def num_blocks(self) -> int:
        """Blocks that every layer group has."""
        return self.pages.blocks_in(self.budget)


def plan_memory(
    config: EngineConfig, pages: KVPages, model_context: int, *, weight_bytes: int, available: int
) -> MemoryPlan:
    """Plan for a process that may still take `available` bytes.

    Raises with both numbers if the context asked for is beyond the model or the budget, and if the
    budget, or the weights, are beyond what there is.
    """
    check_context(config.context, model_context)
    wanted = config.context or model_context
    needed, block = pages.bytes_of(wanted), pages.block_bytes
    room = _room_beside(weight_bytes, available)
    budget = int(room * _SHARE_OF_FREE) if config.kv_memory is None else config.kv_memory
    if budget > room:
        raise OutOfMemoryError(
            f"kv_memory asks for {budget:,} bytes, and beside {weight_bytes:,} bytes of weights "
            f"this process may take {room:,}: lower kv_memory, free memory, or raise its limit"
        )
    if budget < needed and config.context is not None:
        raise OutOfMemoryError(
            f"a context of {counted(wanted, 'token')} needs {needed:,} bytes of KV, "
            f"the budget is {budget:,}: lower context or {_way_to(needed, room)}"
        )
    if budget < block:
        raise OutOfMemoryError(
            f"one KV block takes {block:,} bytes, the budget is {budget:,}: {_way_to(block, room)}"
        )
    if config.kv_memory is None:
        budget = min(budget, needed * config.max_num_seqs + _FOR_PREFIXES * block)
    return MemoryPlan(min(wanted, pages.tokens_in(budget)), budget, pages)


def _way_to(budget: int, room: int) -> str:
    """Say what gives the KV pages so many bytes, where a budget may be as large as `room`."""
    return "raise kv_memory" if budget <= room else "free memory"


def _room_beside(weight_bytes: int, available: int) -> int:
    if weight_bytes >= available:
        raise OutOfMemoryError(
            f"the weights take {weight_bytes:,} bytes, and this process may take {available:,}: "
            "free memory, raise its limit, or run a smaller model"
        )
    return available - weight_bytes
