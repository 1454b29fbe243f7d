"""Request and RequestOutput: one prompt on its way through the engine, and what comes back.

A Request is the engine's; a RequestOutput is the user's and never changes once given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from octavo.records import CacheRecord
from octavo.sampling_params import SamplingParams

FinishReason = Literal["stop", "length", "abort"]


@dataclass(slots=True)
class RequestTimes:
    """Seconds of the monotonic clock."""

    added: float = 0.0
    first_token: float | None = None
    last_token: float | None = None


@dataclass(slots=True)
class Request:
    """`tokens` is the prompt, then the answer so far; K and V exist for the first
    `num_computed_tokens`."""

    id: int
    params: SamplingParams
    prompt_token_ids: tuple[int, ...]
    seed: int
    temperature: float
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    times: RequestTimes = field(default_factory=RequestTimes)
    peak_blocks: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt_token_ids)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_token_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_completion_tokens(self) -> int:
        return self.num_tokens - self.num_prompt_tokens

    @property
    def completion_token_ids(self) -> list[int]:
        return self.tokens[self.num_prompt_tokens :]


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
    outputs: Sequence[Completion]
    usage: Usage
    cache: CacheRecord
    metrics: Metrics
    seed: int

    def to_dict(self) -> dict[str, object]:
        """The same names as plain data, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of an answer. `output` is the whole, on the last chunk only."""

    text: str
    token_ids: tuple[int, ...]
    output: RequestOutput | None = None
