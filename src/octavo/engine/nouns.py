"""The engine's nouns: a Request with its Branches, and what the four verbs of a step hand on.
`schedule` makes a StepPlan, `forward` runs its batch, `sample` reads its HeadRows and makes a
Decision for each request, `update` applies those and tells the StepResult.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any, NamedTuple, Protocol

import numpy as np

from octavo.batch import (
    EDIT,
    NO_EDITS,
    Asked,
    Batch,
    Draw,
    Edits,
    FloatArray,
    Mask,
    StepOutput,
    Want,
)
from octavo.constraint import ConstraintState
from octavo.kv_cache.cache import BlockTable, Root, Transfer
from octavo.records import CacheRecord
from octavo.request import FinishReason, RequestOptions, RowValues, TokenLogprobs
from octavo.sampling_params import Sampling, SamplingParams


class Wait(NamedTuple):
    """Names the running branch whose blocks a waiting one will share."""

    producer: Branch
    until: int  # tokens that the producer will have computed


@dataclass(slots=True, eq=False)
class Branch:
    """One continuation of a request's prompt: an answer that is drawn, or a beam.

    `tokens` is the prompt, then the answer so far; K and V exist for the first
    `num_computed_tokens`. `index` is its number among the request's answers: draws depend on it.
    """

    request: Request
    index: int
    tokens: list[int]
    num_computed_tokens: int = 0
    table: BlockTable | None = None  # its blocks; None: it has not begun, or has ended
    wait: Wait | None = None
    constraint: ConstraintState | None = None  # that accepted the answer so far
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cumulative_logprob: float | None = None  # of a beam that ended

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_completion_tokens(self) -> int:
        return len(self.tokens) - self.request.num_prompt_tokens

    @property
    def completion_token_ids(self) -> list[int]:
        return self.tokens[self.request.num_prompt_tokens :]


@dataclass(slots=True, eq=False)
class Request:
    """One prompt on its way. Begins with one branch; the others fork from it when the prompt has
    been computed. Times are seconds of the engine's clock."""

    id: int
    params: SamplingParams
    options: RequestOptions
    prompt_token_ids: tuple[int, ...]
    seed: int
    sampling: Sampling
    max_tokens: int  # at least 1, of params that draw nothing too
    every_row: RowValues | None = None
    # Known once it is queued.
    biases: Edits = field(init=False)  # of `logit_bias`
    decoding: Decoding = field(init=False)
    root: Root = field(init=False)  # its prefixes are found, and registered, under it
    is_private: bool = False  # nobody else finds what is under the root
    added_at: float = 0.0
    deadline: float = inf
    # How far it is.
    branches: list[Branch] = field(init=False)
    row_values: list[Any] = field(default_factory=list)  # of the prompt's tokens, as they come
    pooled: FloatArray | None = None  # (hidden,) the row, or the sum of the rows, so far
    num_pooled: int = 0  # rows
    is_running: bool = False
    is_half: bool = False  # an update of it has begun and not come to its end
    ending: FinishReason | None = None  # so has its end
    finished: bool = False
    error: Exception | None = None
    # What is told of it at the end.
    cache: CacheRecord | None = None  # as found when it was first scheduled; knows no text
    begun_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    peak_bytes: int = 0  # of KV blocks, those shared with others too
    num_preemptions: int = 0
    beam_parents: tuple[tuple[int, ...], ...] = ()  # after each step, once it has ended

    def __post_init__(self) -> None:
        if self.params.prompt_logprobs is not None:
            self.every_row = "logprobs"
        if self.options.pooling == "mean":
            self.every_row = "hidden"
        self.biases = _biases(self.params)
        if not self.draws:  # it takes the slots of one token, which is never computed
            self.max_tokens = 1
        first = Branch(self, 0, list(self.prompt_token_ids))
        if self.options.constraint is not None and self.draws:
            first.constraint = self.options.constraint.start()
        self.branches = [first]

    @property
    def rank(self) -> tuple[int, int]:
        """Return its place in both queues, running and waiting: the smallest comes first."""
        return self.options.priority, self.id

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def width(self) -> int:
        """Branches that may run at once."""
        return self.params.beam_width or self.params.n

    @property
    def live_branches(self) -> list[Branch]:
        """The branches that have not ended."""
        if len(self.branches) == 1:
            return [] if self.branches[0].finish_reason else self.branches[:]
        return [b for b in self.branches if b.finish_reason is None]

    @property
    def tables(self) -> list[BlockTable]:
        """The block tables of its branches that have begun."""
        return [b.table for b in self.branches if b.table is not None]

    @property
    def draws(self) -> bool:
        """Something is drawn after the prompt; else its rows are all that is wanted."""
        wants_answer = self.params.max_tokens != 0 and self.options.pooling is None
        return wants_answer and self.every_row in (None, "logprobs")

    @property
    def num_rows_wanted(self) -> int:
        """Tokens of the prompt whose rows give a value; the last has no successor to score."""
        if self.every_row is None:
            return 0
        return self.num_prompt_tokens - (self.every_row in ("logprobs", "scores"))

    @property
    def needs_every_row(self) -> bool:
        """Rows of the prompt are still to give their values."""
        return self.num_values < self.num_rows_wanted

    @property
    def num_values(self) -> int:
        """Rows of the prompt that gave theirs."""
        return len(self.row_values) + self.num_pooled

    def take(self, values: Sequence[Any]) -> None:
        """Note what the next rows of the prompt gave; embeddings are added up."""
        if self.options.pooling is None:
            self.row_values += values
            return
        for row in values:
            if self.pooled is None:
                self.pooled = row.copy()
            else:
                self.pooled += row
            self.num_pooled += 1

    @property
    def prompt_logprobs(self) -> list[TokenLogprobs | None] | None:
        """Log-probabilities of the prompt's tokens so far, None for the first; None if not
        wanted."""
        return [None, *self.row_values] if self.every_row == "logprobs" else None


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
    mask: Mask | None = None
    draw: Draw | None = None
    argmax: int = -1
    log_sum_exp: float = nan
    logits: FloatArray | None = None  # (vocab,) if it wanted them
    hidden: FloatArray | None = None  # (hidden,) likewise
    top: Sequence[tuple[int, float]] = ()  # (token, log-probability), best first, likewise
    drawn: int = -1  # likewise
    drawn_logit: float = nan  # of it, unedited


@dataclass(slots=True)
class StepPlan:
    """Says what a step is to do; only the scheduler fills it."""

    begun: float  # of the engine's clock
    # Rows for tokens [begin, end) of a branch.
    spans: dict[Branch, tuple[int, int]] = field(default_factory=dict)
    num_preempted: int = 0
    is_full: bool = False  # one waits until blocks are copied
    transfers: Sequence[Transfer] = ()  # to make before the rows run, in this order
    requests: Sequence[Request] = ()  # of the branches
    head_rows: list[HeadRow] = field(default_factory=list)
    batch: Batch | None = None  # None: no rows

    def read(self, out: StepOutput) -> Sequence[HeadRow]:
        """Return the head rows, filled with what the head gave each."""
        logits, hidden = iter(out.logits), iter(out.hidden)
        drawn = zip(out.drawn.tolist(), out.drawn_logits.tolist(), strict=True)
        given = zip(self.head_rows, out.argmax.tolist(), out.log_sum_exp.tolist(), strict=True)
        for i, (row, argmax, lse) in enumerate(given):
            row.argmax, row.log_sum_exp = argmax, lse
            if row.want is Want.DRAW:
                row.drawn, row.drawn_logit = next(drawn)
            elif row.want is Want.LOGITS:
                row.logits = next(logits)
            elif row.want is Want.HIDDEN:
                row.hidden = next(hidden)
            elif row.want is Want.TOP_K:
                found = zip(out.top_ids[i].tolist(), out.top_logits[i].tolist(), strict=True)
                row.top = [(token, logit - lse) for token, logit in found]
        return self.head_rows


def _biases(params: SamplingParams) -> Edits:
    rows = [(token, 1, bias) for token, bias in (params.logit_bias or {}).items()]
    return np.array(rows, EDIT) if rows else NO_EDITS


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
