"""What a request asks, and what comes back: a RequestOutput, whole or in StreamChunks. None of it
changes once given. What is between, the Request on its way, is the engine's (`engine/nouns.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from octavo.constraint import Constraint
from octavo.errors import UsageError
from octavo.options import check, described, option
from octavo.records import CacheRecord
from octavo.sampling_params import Sampling, parse_ids

FinishReason = Literal["stop", "length", "abort", "deadline", "error"]
RowValues = Literal["logprobs", "logits", "scores", "hidden"]  # wanted of every token of a prompt
Pooling = Literal["last", "mean"]


def _parse_constraint(name: str, value: object) -> Constraint:
    if not isinstance(value, Constraint):
        raise UsageError(f"{name}={value!r}: expected what LLM.grammar gives")
    return value


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
    constraint: Constraint | None = option(
        None, "What the answer may say: a grammar, of LLM.grammar", parse=_parse_constraint,
        flag=None,
    )  # fmt: skip

    shown_tokens: Sequence[int] = option(
        (), "Control tokens that stand in the text by their names", parse=parse_ids, flag=None
    )
    pooling: Pooling | None = option(
        None,
        "Draw nothing, but give the prompt's embedding: its last row of the model, or the mean",
        choices=("last", "mean"),
        flag=None,
    )

    def __post_init__(self) -> None:
        check(self)


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
    stop: str | int | None = None  # the stop string, or of `stop_token_ids` the one, that ended it


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
    queue_ms: float | None = None  # before it first ran


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
    embedding: tuple[float, ...] | None = None  # float32s of length 1, if `pooling` asked for it
    error_type: str | None = None  # the name of its class, such as ConstraintError

    def to_dict(self) -> dict[str, object]:
        """Return plain data under the same names, for JSON."""
        return asdict(self)


@dataclass(slots=True)  # not frozen: one a token, and that takes four times as long to make
class StreamChunk:
    """A piece of answer `index`. `output` is the whole request, on its last chunk only. `step` is
    the StepRecord's that its last token came with; None where it came with none. `logprobs`, if
    they are wanted, has one for each token. `finish_reason` is the answer's own, on its last
    chunk."""

    text: str
    token_ids: tuple[int, ...]
    output: RequestOutput | None = None
    index: int = 0
    step: int | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a prompt is: tokens, and ms since it was queued. `eta_ms` is what the rest takes at
    the measured rate of prefill, None before one was measured."""

    total: int
    cached: int
    processed: int  # the cached ones too
    time_ms: float
    eta_ms: float | None
