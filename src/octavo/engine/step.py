"""What the four verbs of a step hand on: `schedule` makes a StepPlan, `forward` runs its batch,
`sample` reads its HeadRows and makes a Decision for each request, `update` applies those and tells
the StepResult.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Protocol

from octavo.batch import Asked, Batch, FloatArray, StepOutput, Want
from octavo.engine.nouns import Branch, Request
from octavo.kv_cache.cache import Transfer
from octavo.request import FinishReason, TokenLogprobs


@dataclass(slots=True)
class HeadRow:
    """A row of the batch that reaches the head, with the token at `position` of a branch: what is
    asked of it, and, once it ran, what the head gave."""

    branch: Branch
    position: int
    row: int  # of the batch
    samples: bool  # the branch goes on from here; else it is a row of the prompt that gives a value
    asked: Asked
    token: int = -1  # the likeliest, or the one that the head drew
    log_sum_exp: float = nan
    logits: FloatArray | None = None  # (vocab,) if it wanted them
    hidden: FloatArray | None = None  # (hidden,) likewise
    top: Sequence[tuple[int, float]] = ()  # (token, log-probability), best first, likewise
    logit: float = nan  # of a token that the head drew, unedited


@dataclass(slots=True)
class StepPlan:
    """Says what a step is to do; only the scheduler fills it."""

    begun: float  # of the engine's clock
    # Rows for tokens [begin, end) of a branch.
    spans: dict[Branch, tuple[int, int]] = field(default_factory=dict)
    num_preempted: int = 0
    waits_for_copies: bool = False  # a branch has no room until blocks are copied
    transfers: Sequence[Transfer] = ()  # to make before the rows run, in this order
    requests: dict[Request, list[HeadRow]] = field(default_factory=dict)  # each with its rows
    caught_up: set[Request] = field(default_factory=set)  # those that go on after the step
    head_rows: list[HeadRow] = field(default_factory=list)  # of all
    batch: Batch | None = None  # None: no rows

    def read(self, out: StepOutput) -> None:
        """Fill the head rows with what the head gave each."""
        logits, hidden = iter(out.logits), iter(out.hidden)
        argmax, draw = Want.ARGMAX, Want.DRAW  # to name one takes as long as all the rest
        drawn = zip(out.drawn.tolist(), out.drawn_logits.tolist(), strict=True)
        given = zip(self.head_rows, out.argmax.tolist(), out.log_sum_exp.tolist(), strict=True)
        for i, (row, likeliest, lse) in enumerate(given):
            row.log_sum_exp = lse
            want = row.asked.want
            if want is draw:
                row.token, row.logit = next(drawn)
                continue
            row.token = likeliest
            if want is argmax:
                continue
            if want is Want.LOGITS:
                row.logits = next(logits)
            elif want is Want.HIDDEN:
                row.hidden = next(hidden)
            elif want is Want.TOP_K:
                found = zip(out.top_ids[i].tolist(), out.top_logits[i].tolist(), strict=True)
                row.top = [(token, logit - lse) for token, logit in found]


@dataclass(slots=True)
class Continuation:
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

    def want(self, branch: Branch) -> Asked | None:
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
