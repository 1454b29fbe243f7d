"""The nouns that the four verbs of a step hand on: `schedule` makes a StepPlan, `forward` runs its
batch, `sample` reads its HeadRows and makes a Decision for each request, `update` applies those and
tells the StepResult.

A branch that caught up is drawn from its last row; of a request that wants every row, each row of
the prompt reaches the head. This file knows how a plan becomes a batch of arrays; it draws nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from octavo.batch import NO_EDITS, Batch, Edits, FloatArray, StepOutput, Want, make_batch
from octavo.kv_cache.cache import Transfer
from octavo.kv_cache.groups import LayerGroup
from octavo.request import Branch, FinishReason, Request, TokenLogprobs


class ScheduledBranch(NamedTuple):
    """Rows for tokens [begin, end) of a branch; it is drawn from the last one if it `samples`."""

    branch: Branch
    begin: int
    end: int
    write_start: int  # rows before it are in their pages already
    blocks: Sequence[Sequence[int]]  # by layer group
    samples: bool  # it caught up


@dataclass(slots=True)
class HeadRow:
    """A row of the batch that reaches the head, with the token at `position` of a branch: what it
    asks for, and, once it ran, what the head gave."""

    branch: Branch
    position: int
    row: int  # of the batch
    samples: bool  # the branch goes on from here; else it is a row of the prompt that gives a value
    want: Want
    edits: Edits
    argmax: int = -1
    log_sum_exp: float = math.nan
    logits: FloatArray | None = None  # (vocab,) if it wanted them
    top: Sequence[tuple[int, float]] = ()  # (token, log-probability), best first, likewise


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

    def read(self, out: StepOutput) -> Sequence[HeadRow]:
        """Return the head rows, filled with what the head gave each."""
        logits = iter(out.logits)
        given = zip(self.head_rows, out.argmax.tolist(), out.log_sum_exp.tolist(), strict=True)
        for i, (row, argmax, lse) in enumerate(given):
            row.argmax, row.log_sum_exp = argmax, lse
            if row.want is Want.LOGITS:
                row.logits = next(logits)
            elif row.want is Want.TOP_K:
                found = zip(out.top_ids[i].tolist(), out.top_logits[i].tolist(), strict=True)
                row.top = [(token, logit - lse) for token, logit in found]
        return self.head_rows


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


class Continuation(NamedTuple):
    """A token that goes on from `parent`, as this answer (or beam) of the request, from 0."""

    parent: Branch
    answer: int
    token: int
    logprobs: TokenLogprobs | None = None
    end: FinishReason | None = None


@dataclass(slots=True)
class Decision:
    """How a request goes on after a step.

    The first continuation of a parent goes on in it, others fork from it; a branch that was drawn
    from and has none is dropped. `end`: the request is over.
    """

    request: Request
    decoding: Decoding  # to go on with
    continuations: Sequence[Continuation] = ()
    row_values: Sequence[Any] = ()
    end: FinishReason | None = None
    error: Exception | None = None  # why nothing could be decided: the request ends with it


class Decoding(Protocol):
    """How a request goes on: the strategy that it asked for. A value: deciding changes nothing, so
    that what raises in the middle of a step can be decided again."""

    @property
    def width_option(self) -> str:
        """The option that says how many branches a request has, for what is said of them."""

    @property
    def num_candidates(self) -> int:
        """Return how many of the likeliest tokens each row has to give."""

    @property
    def goes_together(self) -> bool:
        """All branches draw in one step, or none does."""

    def num_slots(self, request: Request) -> int:
        """Return how many branches may run from now on."""

    def want(self, branch: Branch) -> tuple[Want, Edits] | None:
        """Return what the row that a branch is drawn from wants of the head; None: nothing is
        drawn."""

    def decide(self, request: Request, rows: Sequence[HeadRow]) -> Decision:
        """Decide how the request goes on, given the rows of the branches that caught up."""

    def close(self, request: Request, reason: FinishReason) -> None:
        """Make its branches, which have ended, the answers that were asked for. May be called
        again."""


@dataclass(slots=True)
class StepResult:
    """Branches that got a token, and requests that ended, in the order it happened."""

    grown: list[Branch] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)


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
    """The rows of an item that reach the head, the first of its rows being row `first_row` of the
    batch; `want` is what the row that the branch is drawn from asks for, if it is."""
    branch, rows = item.branch, []
    request = branch.request
    if request.every_row is not None:
        begin = max(item.begin, len(request.row_values))  # one that ran again gives nothing new
        for position in range(begin, min(item.end, request.num_rows_wanted)):
            row = first_row + position - item.begin
            rows.append(HeadRow(branch, position, row, False, Want.LOGITS, NO_EDITS))
    if want is not None:
        last = item.end - 1
        rows.append(HeadRow(branch, last, first_row + last - item.begin, True, *want))
    return rows
