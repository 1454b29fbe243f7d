"""The engine's nouns: a Request with its Branches. What a step hands on is in `step`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from octavo.batch import EDIT, NO_EDITS, Edits, FloatArray
from octavo.constraint import ConstraintState
from octavo.kv_cache.cache import BlockTable, Root
from octavo.records import CacheRecord
from octavo.request import FinishReason, RequestOptions, RowValues, TokenLogprobs
from octavo.sampling_params import Sampling, SamplingParams

if TYPE_CHECKING:
    from octavo.engine.step import Decoding


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
    cumulative_logprob: float | None = None  # of one that ended, where it is what ranks them

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
    num_prompt_tokens: int = field(init=False)
    draws: bool = field(init=False)  # after the prompt; else its rows are all that is wanted
    # Known once it is queued.
    biases: Edits = field(init=False)  # of `logit_bias`
    is_penalised: bool = field(init=False)  # what was said weighs on what may come
    # The head itself may draw its tokens, for nobody has to see a whole row of logits.
    head_may_draw: bool = field(init=False)
    asks_alike: bool = field(init=False)  # the same of the head for each token that it draws
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
    is_half_updated: bool = False  # the update that began has not ended
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
    # Once it has ended: of its branches after each step their places before it, if they change.
    branch_parents: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.params.prompt_logprobs is not None:
            self.every_row = "logprobs"
        if self.options.pooling == "mean":
            self.every_row = "hidden"
        self.num_prompt_tokens = len(self.prompt_token_ids)
        wants_answer = self.params.max_tokens != 0 and self.options.pooling is None
        self.draws = wants_answer and self.every_row in (None, "logprobs")
        self.biases = _biases(self.params)
        sampling, logprobs = self.sampling, self.params.logprobs
        self.is_penalised = sampling.penalises
        # Of the token that it draws by chance the head tells the logit too, and of no others.
        told = logprobs is None or (logprobs == 0 and not sampling.greedy)
        self.head_may_draw = told and (sampling.greedy or not sampling.cuts)
        if not self.draws:  # it takes the slots of one token, which is never computed
            self.max_tokens = 1
        first = Branch(self, 0, list(self.prompt_token_ids))
        if self.options.constraint is not None and self.draws:
            first.constraint = self.options.constraint.start()
        self.branches = [first]
        self.asks_alike = not self.is_penalised and first.constraint is None

    @property
    def rank(self) -> tuple[int, int]:
        """Return its place in both queues, running and waiting: the smallest comes first."""
        return self.options.priority, self.id

    @property
    def width(self) -> int:
        """Branches that may run at once."""
        return self.params.width

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


def _biases(params: SamplingParams) -> Edits:
    rows = [(token, 1, bias) for token, bias in (params.logit_bias or {}).items()]
    return np.array(rows, EDIT) if rows else NO_EDITS
