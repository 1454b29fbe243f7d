"""Runner: the second verb. The native program runs the batch of a plan, and its arrays come back.
Owns the KV pages.

Knows arrays and the compiled core. Knows nothing of waiting requests, text or sampling.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from octavo.batch import Batch, StepOutput, Want
from octavo.config import SINKS_DTYPE, EngineConfig
from octavo.engine.step import StepPlan
from octavo.errors import OutOfMemoryError, UnsupportedModelError
from octavo.kernels import default_isa, native
from octavo.kv_cache.cache import LayerGroup, Layout, Transfer
from octavo.planning.page_groups import PageGroup, page_groups
from octavo.program.encode import encode
from octavo.program.fuse import fuse, lower
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Attend
from octavo.program.program import Program
from octavo.program.rope import CosSinRows, CosSinTables
from octavo.weights.model_weights import ModelWeights

_MAP_NORESERVE = 0x4000  # Linux, all architectures that Octavo runs on; not in the mmap module


class Forward(Protocol):
    """Runs plans: the Runner does, or what stands in its place where there is no model."""

    @property
    def isa(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def mask_words(self) -> int:
        """Words of a Mask: it has a bit for each row of the head."""

    @property
    def op_names(self) -> Sequence[str]: ...
    @property
    def max_rows(self) -> int:
        """The most rows that one step may have."""

    @property
    def groups(self) -> Sequence[LayerGroup]: ...
    @property
    def kv_budget(self) -> int:
        """Bytes of KV blocks, of all layer groups together."""

    def forward(self, plan: StepPlan) -> StepOutput:
        """Make the transfers of a plan, then run its rows, if it has any."""

    def transfer(self, transfers: Iterable[Transfer]) -> None: ...


class Runner:
    def __init__(
        self,
        program: Program,
        weights: ModelWeights,
        config: EngineConfig,
        *,
        pool: native.ThreadPool,
        context: int,
        kv_budget: int,
        max_rows: int,
    ) -> None:
        """`kv_budget` is in bytes."""
        kinds = weights.row_kinds(config.activations)
        lowered = fuse(program, kinds) if config.fuse else lower(program, kinds)
        encoded = encode(lowered, kinds)
        self.isa = default_isa()
        self.clock = time.monotonic
        self.op_names = encoded.op_names
        self.vocab_size, self.hidden_size = program.vocab_size, program.hidden_size
        self._logits_width = program.logits_width
        self.mask_words = -(-program.logits_width // 32)
        self.max_rows = max_rows
        self._profile = config.profile
        groups = page_groups(program, config.kv_sink_tokens, context)
        self.layouts = kv_layouts(program, config)
        # All layer groups share one budget: each has an address range that could take it alone.
        self.kv_budget = kv_budget
        self.num_blocks = [self.kv_budget // layout.block_stride for layout in self.layouts]
        self.storages = [
            PageStorage(count, layout.block_stride)
            for count, layout in zip(self.num_blocks, self.layouts, strict=True)
        ]
        self.pages = [np.frombuffer(s.memory, np.uint8) for s in self.storages]  # by layer group
        self.groups = _layer_groups(groups, self.layouts)
        self.block_bytes = Layout(self.groups, config.block_size, max_rows).block_bytes
        tables = [program.rope_tables[name] for name in encoded.rope_tables]
        is_endless = config.sliding_context is not None
        self._rope = CosSinRows(tables, max_rows) if is_endless else CosSinTables(tables, context)
        self._native = native.Program(
            self.isa,
            pool,
            encoded.records.view(np.int32).reshape(len(encoded.records), -1),
            encoded.buffers.view(np.int32).reshape(len(encoded.buffers), -1),
            [weights.matrices[name] for name in encoded.matrices],
            [weights.vectors[name] for name in encoded.vectors],
            [
                (layout, pages, each.window, each.beginning, each.sinks)
                for layout, pages, each in zip(self.layouts, self.pages, groups, strict=True)
            ],
            self._rope.arrays,
            [(slopes.array(), slopes.rounded) for slopes in encoded.slopes],
            max_rows,
            [
                (table.data, int(table.type), table.rows, table.cols)
                for table in (weights.tables[name] for name in encoded.tables)
            ],
            is_endless,
        )

    def forward(self, plan: StepPlan) -> StepOutput:
        """Make the transfers of a plan, then run its rows, if it has any."""
        begin = self.clock()
        self.transfer(plan.transfers)
        batch = plan.batch
        if batch is None:
            return StepOutput.empty()
        outputs = len(batch.output_rows)
        wants = batch.wants.tolist()
        num_logits, num_hidden = wants.count(Want.LOGITS), wants.count(Want.HIDDEN)
        num_drawn = wants.count(Want.DRAW)
        out = StepOutput(
            argmax=np.empty(outputs, np.int32),
            log_sum_exp=np.empty(outputs, np.float32),
            top_ids=np.empty((outputs, batch.top_k), np.int32),
            top_logits=np.empty((outputs, batch.top_k), np.float32),
            logits=np.empty((num_logits, self._logits_width), np.float32),
            hidden=np.empty((num_hidden, self.hidden_size), np.float32),
            drawn=np.empty(num_drawn, np.int32),
            drawn_logits=np.empty(num_drawn, np.float32),
            op_ns=np.zeros(len(self.op_names) if self._profile else 0, np.uint64),
        )
        self._rope.turn(batch.positions)
        self._native.run(batch, out)
        out.seconds = self.clock() - begin
        return out

    def run(self, batch: Batch) -> StepOutput:
        """Run the rows of a batch that no scheduler planned."""
        return self.forward(StepPlan(begun=0.0, batch=batch))

    def transfer(self, transfers: Iterable[Transfer]) -> None:
        """Copy blocks, or give their memory back to the system, one after the other."""
        for kind, group, block, to in transfers:
            if kind == "release":
                self.storages[group].release(block)
            else:
                assert kind == "copy"
                assert min(block, to) >= 0, "block numbers do not count from the end"
                blocks = self.pages[group].reshape(self.num_blocks[group], -1)
                blocks[to] = blocks[block]


class PageStorage:
    """Memory of `num_blocks` blocks of `block_bytes` each, one after the other, which the system
    gives when it is first touched. Knows neither what is in them nor who holds which."""

    def __init__(self, num_blocks: int, block_bytes: int) -> None:
        assert block_bytes % mmap.PAGESIZE == 0, "blocks are whole memory pages"
        self.num_blocks = num_blocks
        self.block_bytes = block_bytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            self.memory = mmap.mmap(-1, num_blocks * block_bytes, flags=flags)
        except OSError as error:  # a limit on address space, or a system that does not overcommit
            raise OutOfMemoryError(
                f"cannot reserve {num_blocks * block_bytes:,} bytes for the KV cache "
                f"({error.strerror}): set a lower kv_memory, or raise the limit (`ulimit -v`)"
            ) from None

    def release(self, block: int) -> None:
        """Give a block's memory back to the system; it reads as zero until written."""
        self.memory.madvise(mmap.MADV_DONTNEED, block * self.block_bytes, self.block_bytes)


def kv_layouts(program: Program, config: EngineConfig) -> list[native.KVLayout]:
    """The pages of each layer group; those of sinks behind all others."""
    groups = page_groups(program, config.kv_sink_tokens)
    return [kv_layout(program, each.group, config, is_sinks=each.is_sinks) for each in groups]


def blocks_bytes(
    program: Program, config: EngineConfig, num_blocks: int, num_sequences: int = 1
) -> int:
    """Bytes of as many blocks in every layer group, as so many sequences have them that let none
    go: each begins with one of sinks, where there are some."""
    groups = page_groups(program, config.kv_sink_tokens)
    layout = Layout(_layer_groups(groups, kv_layouts(program, config)), config.block_size, 1)
    first, others = layout.between(0, 1), layout.between(1, 2)
    counts = [
        num_sequences * n + (num_blocks - num_sequences) * m
        for n, m in zip(first, others, strict=True)
    ]
    return layout.bytes(counts)


def _layer_groups(
    groups: Sequence[PageGroup], layouts: Sequence[native.KVLayout]
) -> list[LayerGroup]:
    pairs = zip(groups, layouts, strict=True)
    return [LayerGroup(layout.block_stride, each.keeps) for each, layout in pairs]


def kv_layout(
    program: Program, group: int, config: EngineConfig, *, is_sinks: bool = False
) -> native.KVLayout:
    spec = program.groups[group]
    kept = config.kv_dtypes
    dtypes = (SINKS_DTYPE,) * 2 if is_sinks else kept.full if spec.is_full else kept.window
    for op in program.ops:
        if isinstance(op, Attend) and op.group == group:
            share = op.heads // spec.kv_heads
            if share > native.MAX_QUERY_GROUP:
                raise UnsupportedModelError(
                    "attention heads that Octavo does not run: query heads of each KV head: "
                    f"expected at most {native.MAX_QUERY_GROUP}, got {share}"
                )
    try:
        return native.KVLayout(
            program.layers_of_group[group],
            spec.kv_heads,
            spec.k_dim,
            spec.v_dim,
            *dtypes,
            config.block_size,
            v_aliases_k=not is_sinks and PageFormats(*config.kv_formats).v_aliases_k(spec),
        )
    except ValueError as error:  # the kernels' own limits, such as widths of whole vectors
        raise UnsupportedModelError(f"attention heads that Octavo does not run: {error}") from None
