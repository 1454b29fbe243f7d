"""Batch and StepOutput: what one forward reads and gives back. Plain named arrays; no behaviour of
theirs. The native core takes them by attribute (csrc/program/step.h). `make_batch` pads and packs.

Each row is one token of one sequence. The rows of a sequence are consecutive and so are their
positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]
Edits = NDArray[np.void]  # of EDIT: biases and penalties of one row, sorted by token
Uniforms = NDArray[np.float64]
Mask = NDArray[np.uint32]  # (words,) bit t % 32 of word t // 32: token t is allowed

EDIT = np.dtype([("token", np.int32), ("scale", np.float32), ("add", np.float32)])
NO_EDITS: Edits = np.zeros(0, EDIT)


class Want(IntEnum):
    """What an output row asks the head for. Every one also gets its log-sum-exp.

    ARGMAX, TOP_K and DRAW see the row's mask and edits; LOGITS are the model's own, before both.
    """

    ARGMAX = 0
    TOP_K = 1
    LOGITS = 2
    HIDDEN = 3
    DRAW = 4


class Asked(NamedTuple):
    """Says what an output row asks the head for, with all that ARGMAX, TOP_K or DRAW is to see.
    The number by which it draws is of `uniforms`."""

    want: Want
    edits: Edits = NO_EDITS
    mask: Mask | None = None  # None: every token is allowed
    temperature: float = 0.0  # above 0, of DRAW


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: IntArray  # (rows,)
    positions: IntArray  # (rows,)
    row_starts: IntArray  # (seqs + 1,): rows of sequence s are row_starts[s] : row_starts[s + 1]
    # (seqs,) first position of each sequence whose K and V are stored; rows before it read the page
    # as it is
    write_starts: IntArray
    block_tables: IntArray  # (groups, seqs, max_blocks) physical block of each logical block
    output_rows: IntArray  # (outputs,) row of the batch
    wants: IntArray  # (outputs,) of Want
    top_k: int = 0  # candidates given to each TOP_K row
    masks: NDArray[np.uint32] | None = None  # (outputs, ceil(vocab / 32)), each a Mask
    edit_starts: IntArray | None = None  # (outputs + 1,) into edits
    edits: Edits | None = None  # (n,), those of each output
    # (outputs,) of those that want DRAW, without meaning of the others; None: none does
    temperatures: FloatArray | None = None
    # likewise, in [0, 1): the first token is drawn whose running probability exceeds it
    uniforms: Uniforms | None = None


@dataclass(slots=True, eq=False)
class StepOutput:
    """What running a batch gave. Arrays are by output; `logits`, `hidden` and those of what was
    drawn hold only the outputs that asked, in order."""

    argmax: IntArray  # (outputs,); -1 of those that want HIDDEN, which give no logits
    log_sum_exp: FloatArray  # (outputs,) of the unedited logits; of those NaN
    top_ids: IntArray  # (outputs, top_k), best first, ties to the lowest id
    top_logits: FloatArray  # (outputs, top_k)
    logits: FloatArray  # (outputs that want LOGITS, vocab)
    hidden: FloatArray  # (outputs that want HIDDEN, hidden), after the final norm
    drawn: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))  # -1: nothing could be
    drawn_logits: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # unedited
    # (ops,) nanoseconds of each op, or (0,): not timed
    op_ns: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    seconds: float = 0.0  # of the forward, copies of blocks included

    @classmethod
    def empty(cls) -> StepOutput:
        """The output of no rows."""
        none, no_rows = np.zeros(0, np.int32), np.zeros((0, 0), np.float32)
        return cls(none, no_rows.reshape(0), none.reshape(0, 0), no_rows, no_rows, no_rows)


def make_batch(
    spans: Sequence[tuple[Sequence[int], int]],
    tables: Sequence[Sequence[Sequence[int]]],
    output_rows: Sequence[int],
    asked: Sequence[Asked],
    *,
    write_starts: Sequence[int] | None = None,
    top_k: int = 0,
    uniforms: Uniforms | None = None,
) -> Batch:
    """Make a ragged batch. `spans`: each sequence's (tokens, position of the first); `tables`: by
    layer group, each sequence's blocks; `asked`: of each output. Without `write_starts` K and V of
    every row are stored."""
    if write_starts is None:
        write_starts = [first for _, first in spans]
    width = max(len(table) for group in tables for table in group)
    padded = [[[*table, *[0] * (width - len(table))] for table in group] for group in tables]
    tokens = [token for span, _ in spans for token in span]
    positions = [p for span, first in spans for p in range(first, first + len(span))]
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=np.array(positions, np.int32),
        row_starts=np.array([0, *accumulate(len(span) for span, _ in spans)], np.int32),
        write_starts=np.array(write_starts, np.int32),
        block_tables=np.array(padded, np.int32),
        output_rows=np.array(output_rows, np.int32),
        top_k=top_k,
        uniforms=uniforms,
        **_wanted(asked),
    )


def next_batch(
    batch: Batch,
    tokens: Sequence[int],
    positions: IntArray,
    tables: Mapping[int, Sequence[Sequence[int]]],
    asked: Sequence[Asked] | None = None,
    uniforms: Uniforms | None = None,
) -> Batch:
    """Make the batch that follows one of decodes alone, where each sequence has one row and each
    row is an output: the next `tokens`, whose K and V are stored. `tables`: of the sequences whose
    blocks have changed, those of each layer group. `asked`: None if all outputs ask for what they
    did before. Nothing is computed by numpy, arrays are only made of lists: between two forwards
    its code is in no cache, and each operation takes 10 us."""
    block_tables = batch.block_tables
    if tables:
        old, (num_groups, num_sequences, width) = block_tables, block_tables.shape
        longest = max(len(table) for groups in tables.values() for table in groups)
        block_tables = np.zeros((num_groups, num_sequences, max(width, longest)), np.int32)
        block_tables[:, :, :width] = old
        for sequence, groups in tables.items():
            for group, table in enumerate(groups):
                block_tables[group, sequence, : len(table)] = table
    return Batch(
        tokens=np.array(tokens, np.int32),
        positions=positions,
        row_starts=batch.row_starts,
        write_starts=positions,
        block_tables=block_tables,
        output_rows=batch.output_rows,
        uniforms=uniforms,
        **(_wanted_by(batch) if asked is None else _wanted(asked)),
    )


class _Wanted(TypedDict):
    """The fields of a Batch that say what its outputs are asked for."""

    wants: IntArray
    edit_starts: IntArray | None
    edits: Edits | None
    masks: NDArray[np.uint32] | None
    temperatures: FloatArray | None


def _wanted(asked: Sequence[Asked]) -> _Wanted:
    wants, edits, masks, temperatures = zip(*asked, strict=True) if asked else ((), (), (), ())
    has_edits = any(map(len, edits))
    return _Wanted(
        wants=np.array(wants, np.int32),
        edit_starts=np.cumsum([0, *map(len, edits)], dtype=np.int32) if has_edits else None,
        edits=np.concatenate(edits) if has_edits else None,
        masks=_stacked(masks),
        temperatures=np.array(temperatures, np.float32) if any(temperatures) else None,
    )


def _wanted_by(batch: Batch) -> _Wanted:
    return _Wanted(
        wants=batch.wants,
        edit_starts=batch.edit_starts,
        edits=batch.edits,
        masks=batch.masks,
        temperatures=batch.temperatures,
    )


def _stacked(masks: Sequence[Mask | None]) -> NDArray[np.uint32] | None:
    """Stack the masks, one for each output; None if no output has one."""
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    if len(masks) == 1:
        return given[0].reshape(1, -1)
    every = np.full(len(given[0]), 0xFFFFFFFF, np.uint32)
    return np.stack([every if mask is None else mask for mask in masks])
