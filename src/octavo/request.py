"""Request and RequestOutput: one prompt on its way through the engine, and what comes back.

A Request is the engine's, and so are its Branches; a RequestOutput is the user's and never changes
once given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from octavo.options import check, described, option
from octavo.records import CacheRecord
from octavo.sampling_params import Sampling, SamplingParams

FinishReason = Literal["stop", "length", "abort", "deadline", "error"]


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
    branches: list[Branch] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    finished: bool = False
    error: Exception | None = None
    cache: CacheRecord | None = None  # as found when it was first scheduled; knows no text
    times: RequestTimes = field(default_factory=RequestTimes)
    deadline: float | None = None  # of the engine's clock
    peak_blocks: int = 0
    beam_parents: list[tuple[int, ...]] = field(default_factory=list)  # of each step's beams
    num_preemptions: int = 0

    def __post_init__(self) -> None:
        self.branches = [Branch(self, 0, list(self.prompt_token_ids))]

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def width(self) -> int:
        """Branches that may run at once."""
        return self.params.beam_width or self.params.n

    @property
    def needs_all_rows(self) -> bool:
        """Log-probabilities of the prompt are wanted, and not there yet."""
        wanted = self.params.prompt_logprobs is not None
        return wanted and len(self.prompt_logprobs) < self.num_prompt_tokens


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
    """Times in ms from admission; rates in tokens per second; None where nothing was measured."""

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
