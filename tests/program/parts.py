"""The parts of a native.Program, open to changes, and a batch for it to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Asked, Batch, StepOutput, Want, make_batch
from octavo.config import EngineConfig
from octavo.engine.runner import kv_layout
from octavo.kernels import default_isa, native
from octavo.program.encode import encode
from octavo.program.fuse import RowKind, fuse, lower
from octavo.program.ops import RopeTable
from octavo.program.rope import cos_sin
from tests.kernels.guard import guarded
from tests.tiny import TINY, TinyModel, tiny_model

POOL = native.ThreadPool(2)
VOCAB, HIDDEN, CONTEXT, BLOCKS = TINY.vocab_size, TINY.hidden_size, 256, 16


@dataclass
class Parts:
    """The parts that a Program is made of, open to changes."""

    ops: list[str]
    records: NDArray[np.void]  # (ops,) RECORD
    buffers: NDArray[np.void]  # (buffers,) BUFFER
    matrices: list[Any]
    vectors: list[Any]
    layout: Any
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    slopes: list[tuple[NDArray[np.float32], bool]]
    window: int = 0
    beginning: int = 0  # of every group
    max_rows: int = 64
    rope_by_row: bool = False
    sinks: int | None = None
    more_groups: list[Any] = field(default_factory=list)  # layout, window, sinks
    tables: list[Any] = field(default_factory=list)

    def buffer_of(self, op: str, field: str) -> int:
        return int(self.records[field][self.ops.index(op)])

    def build(self) -> native.Program:
        groups = [(self.layout, self.window, self.sinks), *self.more_groups]
        words = [np.ascontiguousarray(a).view(np.int32) for a in (self.records, self.buffers)]
        return native.Program(
            default_isa(), POOL, words[0].reshape(len(self.records), -1),
            words[1].reshape(len(self.buffers), -1), self.matrices, self.vectors,
            [(layout, self._pages(), window, self.beginning, sinks)
             for layout, window, sinks in groups],
            [(self.cos, self.sin)], self.slopes, self.max_rows, self.tables, self.rope_by_row,
        )  # fmt: skip

    def _pages(self) -> NDArray[np.uint8]:
        return guarded(np.zeros(BLOCKS * 24 * 1024, np.uint8))


def make_parts(*, fused: bool = True, model: TinyModel | None = None) -> Parts:
    """Of the tiny Llama, unless of another model."""
    model = tiny_model(TINY, POOL) if model is None else model
    kinds: dict[str, RowKind] = dict.fromkeys(model.weights.matrices, "a32")
    encoded = encode((fuse if fused else lower)(model.program, kinds), kinds)
    return Parts(
        list(encoded.op_names),
        encoded.records.copy(),
        encoded.buffers.copy(),
        [model.weights.matrices[name] for name in encoded.matrices],
        [model.weights.vectors[name] for name in encoded.vectors],
        kv_layout(model.program, 0, EngineConfig.parse({})),
        *_cos_sin(model),
        [(each.array(), each.rounded) for each in encoded.slopes],
    )


def _cos_sin(model: TinyModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    tables = model.program.rope_tables
    positions = np.arange(CONTEXT, dtype=np.int32)
    return cos_sin(tables.get("default", RopeTable(())), positions)


def batch_of(tokens: list[int], first_block: int = 0) -> Batch:
    """One sequence from position 0 whose rows all want their logits."""
    rows = len(tokens)
    table = list(range(first_block, first_block + 4))
    return make_batch([(tokens, 0)], [[table]], range(rows), [Asked(Want.LOGITS)] * rows)


def output_of(batch: Batch) -> StepOutput:
    rows = len(batch.tokens)
    return StepOutput(
        argmax=np.empty(rows, np.int32),
        log_sum_exp=np.empty(rows, np.float32),
        top_ids=np.empty((rows, 0), np.int32),
        top_logits=np.empty((rows, 0), np.float32),
        logits=np.empty((rows, VOCAB), np.float32),
        hidden=np.empty((0, HIDDEN), np.float32),
    )


def run(program: native.Program, tokens: list[int], first_block: int = 0) -> NDArray[np.float32]:
    """(tokens, vocab) logits of one sequence from position 0."""
    batch = batch_of(tokens, first_block)
    output = output_of(batch)
    program.run(batch, output)
    return output.logits
