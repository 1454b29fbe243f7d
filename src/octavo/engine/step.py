"""StepPlan: which rows of which branches run in a step, where their K and V lie, and what the head
is asked for; StepResult: what came of it.

A branch that caught up is drawn from its last row; a request that wants every row has each row of
its prompt come out. Knows arrays as the batch that a plan becomes; draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Batch, IntArray, StepOutput, Want
from octavo.engine.decoding.decoding import HeadOutput
from octavo.engine.decoding.drawing import NO_EDITS, Edits
from octavo.kv_cache.cache import Transfer
from octavo.kv_cache.groups import LayerGroup
from octavo.request import Branch, Request


class ScheduledBranch(NamedTuple):
    """Rows for tokens [begin, end) of a branch; it is drawn from the last one if it `samples`."""

    branch: Branch
    begin: int
    end: int
    write_start: int  # rows before it are in their pages already
    blocks: Sequence[Sequence[int]]  # by layer group
    samples: bool  # it caught up


class HeadRow(NamedTuple):
    """Row `row` of the batch, at `position` of the item's branch."""

    item: ScheduledBranch
    row: int
    position: int
    want: Want
    edits: Edits
    samples: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    begun: float  # of the engine's clock
    transfers: Sequence[Transfer] = ()  # to make before the rows run, in this order
    scheduled: Sequence[ScheduledBranch] = ()
    head_rows: Sequence[HeadRow] = ()
    batch: Batch | None = None  # None: no rows
    num_preempted: int = 0

    @property
    def requests(self) -> list[Request]:
        return list(dict.fromkeys(s.branch.request for s in self.scheduled))

    def outputs(self, out: StepOutput) -> Iterator[HeadOutput]:
        """Return what the head gave each of the head rows."""
        logits = iter(out.logits)
        for i, row in enumerate(self.head_rows):
            lse = float(out.log_sum_exp[i])
            top: list[tuple[int, float]] = []
            if row.want is Want.TOP_K:
                found = zip(out.top_ids[i].tolist(), out.top_logits[i].tolist(), strict=True)
                top = [(token, logit - lse) for token, logit in found]
            mine = next(logits) if row.want is Want.LOGITS else None
            yield HeadOutput(
                row.item.branch, row.position, row.samples, row.edits,
                int(out.argmax[i]), lse, mine, top,
            )  # fmt: skip


@dataclass(slots=True)
class StepResult:
    """Branches that got a token, and requests that ended, in the order it happened."""

    grown: list[Branch] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)


class Forward(Protocol):
    """Runs plans: the Runner does, or what stands in its place where there is no model."""

    @property
    def isa(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
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


def make_batch(
    spans: Sequence[tuple[Sequence[int], int]],
    tables: Sequence[Sequence[Sequence[int]]],
    output_rows: Sequence[int],
    wants: Sequence[Want],
    *,
    write_starts: Sequence[int] | None = None,
    top_k: int = 0,
    edit_starts: IntArray | None = None,
    edits: NDArray[np.void] | None = None,
) -> Batch:
    """A ragged batch. `spans`: each sequence's (tokens, position of the first); `tables`: by layer
    group, each sequence's blocks. Without `write_starts` K and V of every row are stored."""
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
        wants=np.array(wants, np.int32),
        top_k=top_k,
        edit_starts=edit_starts,
        edits=edits,
    )


def step_batch(
    scheduled: Sequence[ScheduledBranch], rows: Sequence[HeadRow], *, top_k: int
) -> Batch:
    """The arrays of a step; `top_k` candidates are given by each TOP_K row."""
    edit_starts = edits = None
    if any(len(row.edits) for row in rows):
        edit_starts = np.cumsum([0, *(len(row.edits) for row in rows)], dtype=np.int32)
        edits = np.concatenate([row.edits for row in rows])
    return make_batch(
        [(s.branch.tokens[s.begin : s.end], s.begin) for s in scheduled],
        list(zip(*(s.blocks for s in scheduled), strict=True)),
        [row.row for row in rows],
        [row.want for row in rows],
        write_starts=[s.write_start for s in scheduled],
        top_k=top_k,
        edit_starts=edit_starts,
        edits=edits,
    )


def head_rows(
    item: ScheduledBranch, first_row: int, want: tuple[Want, Edits] | None
) -> list[HeadRow]:
    """The rows of an item that reach the head, the first of them row `first_row` of the batch;
    `want` is what the row that the branch is drawn from asks for, if it is."""
    request, rows = item.branch.request, []
    if request.every_row is not None:
        begin = max(item.begin, len(request.row_values))  # one that ran again gives nothing new
        for position in range(begin, min(item.end, request.num_rows_wanted)):
            row = first_row + position - item.begin
            rows.append(HeadRow(item, row, position, Want.LOGITS, NO_EDITS, False))
    if want is not None:
        last = item.end - 1
        rows.append(HeadRow(item, first_row + last - item.begin, last, *want, True))
    return rows
