"""Runner: a plan becomes a Batch, the native program runs it, its arrays come back. Owns the KV
pages.

Knows arrays and the compiled core. Knows nothing of waiting requests, text or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Batch, FloatArray, IntArray, StepOutput, Want
from octavo.config import EngineConfig
from octavo.errors import UnsupportedModelError
from octavo.kernels import default_isa, native
from octavo.kv_cache.storage import PageStorage
from octavo.program.encode import encode
from octavo.program.fuse import fuse, lower
from octavo.program.ops import Program
from octavo.program.rope import cos_sin
from octavo.weights.gguf_model import ModelWeights


class Runner:
    def __init__(
        self,
        program: Program,
        weights: ModelWeights,
        config: EngineConfig,
        *,
        pool: native.ThreadPool,
        context: int,
        num_blocks: int,
        max_rows: int,
    ) -> None:
        kinds = weights.row_kinds(config.activations)
        lowered = fuse(program, kinds) if config.fuse else lower(program, kinds)
        encoded = encode(lowered, kinds)
        self.isa = default_isa()
        self.op_names = encoded.op_names
        self.vocab_size, self.hidden_size = program.vocab_size, program.hidden_size
        self.max_rows = max_rows
        self.num_blocks = num_blocks
        self._profile = config.profile
        self.layouts = [kv_layout(program, group, config) for group in range(len(program.groups))]
        self.storages = [PageStorage(num_blocks, layout.block_stride) for layout in self.layouts]
        self.pages = [np.frombuffer(s.memory, np.uint8) for s in self.storages]  # by layer group
        windows = [spec.window for spec in program.groups]
        self._native = native.Program(
            self.isa,
            pool,
            encoded.records.view(np.int32).reshape(len(encoded.records), -1),
            encoded.buffers.view(np.int32).reshape(len(encoded.buffers), -1),
            [weights.matrices[name] for name in encoded.matrices],
            [weights.vectors[name] for name in encoded.vectors],
            list(zip(self.layouts, self.pages, windows, strict=True)),
            [cos_sin(program.rope_tables[name], context) for name in encoded.rope_tables],
            max_rows,
        )

    @property
    def block_bytes(self) -> int:
        """Of one block in every layer group."""
        return sum(layout.block_stride for layout in self.layouts)

    def forward(self, batch: Batch) -> StepOutput:
        outputs = len(batch.output_rows)
        wants = batch.wants.tolist()
        num_logits, num_hidden = wants.count(Want.LOGITS), wants.count(Want.HIDDEN)
        out = StepOutput(
            argmax=np.empty(outputs, np.int32),
            log_sum_exp=np.empty(outputs, np.float32),
            top_ids=np.empty((outputs, batch.top_k), np.int32),
            top_logits=np.empty((outputs, batch.top_k), np.float32),
            logits=np.empty((num_logits, self.vocab_size), np.float32),
            hidden=np.empty((num_hidden, self.hidden_size), np.float32),
            op_ns=np.zeros(len(self.op_names) if self._profile else 0, np.uint64),
        )
        self._native.run(batch, out)
        return out

    def release_blocks(self, blocks: Sequence[int]) -> None:
        """Give the memory of blocks that hold nothing back to the system."""
        for storage in self.storages:
            for block in blocks:
                storage.release(block)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination), in every layer group, one pair after the
        other."""
        for pages, layout in zip(self.pages, self.layouts, strict=True):
            blocks = pages.reshape(self.num_blocks, layout.block_stride)
            for source, destination in pairs:
                assert min(source, destination) >= 0, "block ids do not count from the end"
                blocks[destination] = blocks[source]


def kv_layout(program: Program, group: int, config: EngineConfig) -> native.KVLayout:
    spec = program.groups[group]
    try:
        return native.KVLayout(
            program.layers_of_group[group],
            spec.kv_heads,
            spec.k_dim,
            spec.v_dim,
            config.k_dtype,
            config.v_dtype,
            config.block_size,
        )
    except ValueError as error:  # the kernels' own limits, such as widths of whole vectors
        raise UnsupportedModelError(f"attention heads that Octavo does not run: {error}") from None


def make_batch(
    spans: Sequence[tuple[Sequence[int], int]],
    tables: Sequence[Sequence[int]],
    num_groups: int,
    output_rows: Sequence[int],
    wants: Sequence[Want],
    *,
    write_starts: Sequence[int] | None = None,
    top_k: int = 0,
    edit_starts: IntArray | None = None,
    edits: NDArray[np.void] | None = None,
) -> Batch:
    """A ragged batch. `spans`: each sequence's (tokens, position of the first); `tables`: its
    blocks. Without `write_starts` K and V of every row are stored."""
    if write_starts is None:
        write_starts = [first for _, first in spans]
    width = max(len(table) for table in tables)
    rows = [[*table, *[0] * (width - len(table))] for table in tables]
    tokens = [token for span, _ in spans for token in span]
    positions = [p for span, first in spans for p in range(first, first + len(span))]
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        row_starts=np.array([0, *accumulate(len(span) for span, _ in spans)], np.int32),
        write_starts=np.array(write_starts, np.int32),
        block_tables=np.array([rows] * num_groups, np.int32),
        output_rows=np.array(output_rows, np.int32),
        wants=np.array(wants, np.int32),
        top_k=top_k,
        edit_starts=edit_starts,
        edits=edits,
    )


def log_probs(logits: FloatArray, log_sum_exp: FloatArray, tokens: IntArray) -> FloatArray:
    """log p of one token a row: (rows,) from (rows, vocab), (rows,), (rows,)."""
    chosen: FloatArray = logits[np.arange(len(tokens)), tokens]
    return chosen - log_sum_exp
