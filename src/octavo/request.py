"""Request and RequestOutput: one prompt on its way through the engine, and what comes back.

A Request is the engine's, and so are its Branches; a RequestOutput is the user's and never changes
once given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from octavo.options import check, described, option
from octavo.records import CacheRecord
from octavo.sampling_params import Sampling, SamplingParams

FinishReason = Literal["stop", "length", "abort", "deadline", "error"]
RowValues = Literal["logprobs", "logits", "scores"]  # what is wanted of every token of a prompt


@described
@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a request asks, beside how its tokens are drawn."""

    priority: int = option(0, "Lower runs first", -(2**31), 2**31 - 1, flag=None)
    deadline_ms: int | None = option(
        None, "End after this many milliseconds, with what there is by then", 1, 2**31 - 1
    )
    cache_salt: str = option(
        "", "Whose tokens these are: under another salt equal ones are never shared", flag=None
    )
    begins_turn: bool = option(
        False, "It follows a chat template: the blank of SPM before it is no text", flag=None
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(slots=True)
class RequestTimes:
    """Seconds of the monotonic clock."""

    added: float = 0.0
    first_token: float | None = None
    last_token: float | None = None

    def note_token(self, now: float) -> None:
        self.first_token = now if self.first_token is None else self.first_token
        self.last_token = now


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
    """Begins with one branch; the others fork from it when the prompt has been computed."""

    id: int
    params: SamplingParams
    options: RequestOptions
    prompt_token_ids: tuple[int, ...]
    seed: int
    sampling: Sampling
    max_tokens: int  # at least 1, of params that draw nothing too
    every_row: RowValues | None = None
    branches: list[Branch] = field(default_factory=list)
    row_values: list[Any] = field(default_factory=list)  # of the prompt's tokens, as they come
    finished: bool = False
    error: Exception | None = None
    cache: CacheRecord | None = None  # as found when it was first scheduled; knows no text
    times: RequestTimes = field(default_factory=RequestTimes)
    peak_bytes: int = 0  # of KV blocks, those shared with others too
    num_preemptions: int = 0
    beam_parents: tuple[tuple[int, ...], ...] = ()  # after each step, once it has ended

    def __post_init__(self) -> None:
        if self.params.prompt_logprobs is not None:
            self.every_row = "logprobs"
        if not self.draws:  # it takes the slots of one token, which is never computed
            self.max_tokens = 1
        self.branches = [Branch(self, 0, list(self.prompt_token_ids))]

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
        return [b for b in self.branches if b.finish_reason is None]

    @property
    def draws(self) -> bool:
        """Something is drawn after the prompt; else its rows are all that is wanted."""
        return self.params.max_tokens != 0 and self.every_row in (None, "logprobs")

    @property
    def num_rows_wanted(self) -> int:
        """Tokens of the prompt whose rows give a value; the last has no successor to score."""
        if self.every_row is None:
            return 0
        return self.num_prompt_tokens - (self.every_row != "logits")

    @property
    def needs_every_row(self) -> bool:
        """Rows of the prompt are still to give their values."""
        return len(self.row_values) < self.num_rows_wanted

    @property
    def prompt_logprobs(self) -> list[TokenLogprobs | None] | None:
        """Log-probabilities of the prompt's tokens so far, None for the first; None if not
        wanted."""
        return [None, *self.row_values] if self.every_row == "logprobs" else None

    def metrics(self) -> Metrics:
        """Times and rates, of a request that has ended."""
        first, last = self.times.first_token, self.times.last_token
        more = sum(b.num_completion_tokens for b in self.branches) - len(self.branches)
        ttft = None if first is None else first - self.times.added
        decode = last - first if more > 0 and first is not None and last is not None else None
        cached = self.cache.matched_tokens if self.cache else 0
        return Metrics(
            ttft_ms=None if ttft is None else ttft * 1e3,
            tpot_ms=None if decode is None else decode * 1e3 / more,
            prefill_tps=(self.num_prompt_tokens - cached) / ttft if ttft else None,
            decode_tps=more / decode if decode else None,
            kv_bytes=self.peak_bytes,
        )


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Natural logs of the model's own distribution, before temperature, penalties and masks."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # likeliest first


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: FinishReason
    cumulative_logprob: float | None = None  # of a beam


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Times in ms, from when it was queued; rates in tokens per second. None: not measured."""

    ttft_ms: float | None
    tpot_ms: float | None
    prefill_tps: float | None
    decode_tps: float | None
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class RequestOutput:
    prompt_token_ids: tuple[int, ...]
    outputs: Sequence[Completion]  # `n` of them; beams are best first
    usage: Usage
    cache: CacheRecord
    metrics: Metrics
    seed: int
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None  # the first has none
    error: str | None = None  # why finish_reason is "error"
    sampling: Sampling | None = None  # what shaped the draws; beams are not drawn

    def to_dict(self) -> dict[str, object]:
        """The same names as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of answer `index`. `output` is the whole request, on its last chunk only. `step` is
    the StepRecord's that its last token came with; None where it came with none."""

    text: str
    token_ids: tuple[int, ...]
    output: RequestOutput | None = None
    index: int = 0
    step: int | None = None
