"""Memory plan: how many KV blocks a model gets, and the context they hold. Decided before weights
are read.

Comes in: sizes, and what is available. Goes out: a MemoryPlan. `KVPages` is how bytes of K and V
are counted by all who count them: the engine, `octavo plan`, a server. Reserves nothing itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from octavo.config import EngineConfig, KVDtypes, check_context, join_kv_dtype
from octavo.errors import OutOfMemoryError, UsageError, counted
from octavo.kv_cache.cache import LayerGroup, Layout
from octavo.planning.page_groups import page_groups
from octavo.program.kv_bytes import PageFormats, Sinks, kv_bytes_by_group, sink_bytes_by_group
from octavo.program.program import Program

_MOST_TOKENS = 2**24  # of a sequence
_PAGE = 4096  # bytes of the system's memory; a block of K and V is whole pages of it
_SHARE_OF_FREE = 0.5  # of what the weights leave, when kv_memory does not say
# Blocks beyond what every sequence at its longest takes, when kv_memory does not say: they keep
# prefixes. A tiny model could have millions, whose bookkeeping every start would wait for.
_FOR_PREFIXES = 2**14


class KVPages:
    """The blocks that K and V lie in, by layer group."""

    def __init__(self, groups: Sequence[LayerGroup], block_size: int, max_rows: int) -> None:
        """A step runs at most `max_rows` rows of a sequence."""
        self.block_size = block_size  # tokens
        self.group_block_bytes = tuple(group.block_bytes for group in groups)
        self._layout = Layout(groups, block_size, max_rows)
        # Of a block in every layer group, behind what only the beginning of a sequence has.
        self.block_bytes = self._layout.block_bytes

    def bytes_of(self, tokens: int) -> int:
        """Bytes that a sequence of so many tokens holds at its longest: its last block is whole
        too, and of a windowed group what a step's rows read and write."""
        return self._layout.bytes(self._layout.at_most(self._layout.count(tokens)))

    def blocks_in(self, nbytes: float) -> int:
        """Blocks of one sequence, in every layer group, that so many bytes hold."""
        more = self.bytes_of(1) - self.block_bytes  # sinks take more than other tokens
        return int(max(0, nbytes - more) // self.block_bytes)

    def tokens_in(self, nbytes: float, most: int = _MOST_TOKENS) -> int:
        """Tokens of the longest sequence that so many bytes hold, in whole blocks; of `most` tokens
        no more is asked."""
        each = zip(self._layout.groups, self._layout.between(1, 2), strict=True)
        kept = sum(n * group.block_bytes for group, n in each if group.keeps_all)
        blocks = self._layout.count(most)
        if kept:
            blocks = min(blocks, int(nbytes // kept))
        ends = range(self.block_size, (blocks + 1) * self.block_size, self.block_size)
        return bisect_right(ends, nbytes, key=self.bytes_of) * self.block_size


def kv_pages(program: Program, block_size: int, formats: PageFormats, *, max_rows: int) -> KVPages:
    """The pages of a program whose K and V have these formats."""
    sinks = formats.sinks
    of_token = kv_bytes_by_group(program, formats)
    of_sink: list[float] = []
    if sinks is not None:
        of_sink = sink_bytes_by_group(program, sinks)
    groups = [
        LayerGroup(
            ceil(block_size * (of_sink if is_sinks else of_token)[group] / _PAGE) * _PAGE, keeps
        )
        for group, keeps, *_, is_sinks, _ in page_groups(program, sinks.tokens if sinks else 0)
    ]
    return KVPages(groups, block_size, max_rows)


def page_formats(program: Program, config: EngineConfig) -> PageFormats:
    """Return the formats as costs and pages are counted with them. Raises where an option is about
    layers that the program has none of."""
    dtypes, full = config.kv_dtypes, sum(spec.is_full for spec in program.groups)
    if dtypes.full != dtypes.window and full in (0, len(program.groups)):
        why, only = "no layers with a window", dtypes.full
        if not full:
            why, only = "a window in all layers", dtypes.window
        raise UsageError(
            f"kv_dtype={config.kv_dtype}: this model has {why}: expected "
            f"kv_dtype={join_kv_dtype(KVDtypes(only, only))}"
        )
    if config.kv_sinks and not full:
        raise UsageError(
            f"kv_sinks={config.kv_sinks}: this model has a window in all layers, and only layers "
            "that see all tokens have sinks: leave kv_sinks out"
        )
    sinks = Sinks(config.kv_sink_tokens, config.sink_format) if config.kv_sink_tokens else None
    return PageFormats(*config.kv_formats, sinks)


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
    needed, block = pages.bytes_of(wanted), pages.bytes_of(1)
    room = _room_beside(weight_bytes, available)
    budget = int(room * _SHARE_OF_FREE) if config.kv_memory is None else config.kv_memory
    if budget > room:
        raise OutOfMemoryError(
            f"kv_memory asks for {budget:,} bytes, and beside {weight_bytes:,} bytes of weights "
            f"this process may take {room:,}: lower kv_memory, free memory, or raise its limit"
        )
    asked = config.context or config.sliding_context
    if budget < needed and asked is not None:
        name = "sliding_context" if config.context is None else "context"
        raise OutOfMemoryError(
            f"a context of {counted(asked, 'token')} needs {needed:,} bytes of KV, "
            f"the budget is {budget:,}: lower {name} or {_way_to(needed, room)}"
        )
    if budget < block:
        raise OutOfMemoryError(
            f"one KV block takes {block:,} bytes, the budget is {budget:,}: {_way_to(block, room)}"
        )
    if config.kv_memory is None:
        budget = min(budget, needed * config.max_num_seqs + _FOR_PREFIXES * pages.block_bytes)
    return MemoryPlan(min(wanted, pages.tokens_in(budget, wanted)), budget, pages)


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
