"""What is counted while requests run: StepRecord, CacheRecord, BlockEvent, Totals. The one source
for stats, traces, metrics and bench; times of a request are its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CacheReason(StrEnum):
    """Why a prompt's tokens were not all found in the cache."""

    COLD = "cold"  # nothing was cached yet
    DIVERGED = "diverged"  # nothing cached goes on with the token at `diverged_at`
    EVICTED = "evicted"  # what follows was cached once, and its memory was needed
    DISABLED = "disabled"
    SALT = "salt"  # the first request under its salt: others' tokens are out of its sight
    DTYPE = "dtype"
    MODEL_CHANGED = "model-changed"
    WINDOW = "window"  # more is cached (`known_tokens`), but no longer what windowed layers read
    NEEDS_ALL_ROWS = "needs-all-rows"  # log-probabilities of the prompt: every row has to run


class CacheSource(StrEnum):
    """Where the tokens that were found came from."""

    NONE = "none"
    PROCESS = "process"
    DISK = "disk"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One request's use of the prefix cache.

    `matched_tokens` were not computed again; the last token of a prompt always is, so that a prompt
    of p tokens that was found whole has p - 1 of them, and no `reason`.
    """

    matched_tokens: int = 0
    source: CacheSource = CacheSource.NONE
    reason: CacheReason | None = CacheReason.DISABLED
    diverged_at: int | None = None  # index of the first prompt token that was not found
    diverged_text: str | None = None
    saved_ms: float | None = None  # at the measured rate of prefill; None before one was measured
    known_tokens: int | None = None  # where a window left fewer: what full layers had
    sliding_context: int | None = None  # tokens that a row sees, where sequences have no end
    let_go_tokens: int | None = None  # of its longest answer: those that the last row did not see


class BlockEventKind(StrEnum):
    """What happened to a KV block."""

    ALLOCATE = "allocate"  # taken, to be written
    COPY = "copy"  # to be filled with what a shared block holds, before it is written
    CACHE = "cache"  # it can be found from now on
    EXTEND = "extend"  # a cached block, partly filled, was filled further in place
    SHARE = "share"  # used in place of another that holds the same tokens
    TAKE_OVER = "take-over"  # cached no more: without room for a copy it is written itself
    LET_GO = "let-go"  # no row of its sequence reads it any more
    EVICT = "evict"  # cached no more: its memory was needed, or idle
    TRUNCATE = "truncate"  # its tokens were taken back
    CLEAR = "clear"  # cached no more: the cache was told to forget it


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """One change of a KV block."""

    kind: BlockEventKind
    group: int
    block: int  # the group's own number


@dataclass(frozen=True, slots=True)
class Pin:
    """The beginning of a prompt that stays in the cache until it is unpinned."""

    id: int  # 0: nothing was pinned
    num_tokens: int  # in whole blocks
    why_not: str | None = None  # why nothing was


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Whole blocks of tokens that later prompts were found to begin with."""

    token_ids: tuple[int, ...]
    num_hits: int  # of sequences that began with all of them
    text: str | None = None


@dataclass(frozen=True, slots=True)
class CacheView:
    """The KV cache as it is, and what is whose: pins and prefixes are those of one salt."""

    counts: Mapping[str, int]  # requests, and blocks of everybody, by the names of `stats()`
    waste: float  # part of the slots of used blocks that hold no token
    pins: tuple[Pin, ...]
    prefixes: tuple[SharedPrefix, ...]  # those that saved most first


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step as it ran. Counts are read off the batch that the program was given."""

    step: int
    num_requests: int
    computed_tokens: int  # rows: tokens whose K and V were computed and written in this step
    kv_read_tokens: int  # tokens of these sequences whose K and V were only read
    output_rows: int
    seconds: float  # the whole step: schedule, forward, sample, update
    forward_seconds: float
    num_waiting: int  # requests that the step left in the queue
    num_preempted: int  # requests that gave up their blocks for this step
    kv_blocks_used: int  # held by requests that run
    kv_blocks_kept: int  # held by nobody, but their tokens can still be found
    kv_blocks_total: int
    kv_slots_unfilled: int  # slots of used blocks that no computed token fills yet
    kv_blocks_copied: int  # shared blocks that were copied to be written
    op_ns: tuple[tuple[str, int], ...] = ()  # by op class, when the counters are on

    def kv_waste(self, block_size: int) -> float:
        """Part of the used blocks' slots that hold no token: 1 - live tokens / slots."""
        slots = self.kv_blocks_used * block_size
        return self.kv_slots_unfilled / slots if slots else 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """All that an engine has done since it was made, as it was between two steps. No count ever
    goes down; one whose key is missing is zero."""

    requests: int = 0  # that have ended
    cancels: int = 0  # of them, those that nobody read any more
    finished: Mapping[str, int] = field(default_factory=dict)  # their answers, by finish_reason
    prompt_tokens: int = 0  # of requests that have begun
    generated_tokens: int = 0
    queried_tokens: int = 0  # of those prompts, what was looked for in the prefix cache
    matched_tokens: int = 0  # and what was found
    misses: Mapping[CacheReason, int] = field(default_factory=dict)  # requests, by reason
    preemptions: int = 0
    steps: int = 0
    computed_tokens: int = 0  # rows
    step_seconds: float = 0.0
    forward_seconds: float = 0.0
    mask_seconds: float = 0.0  # in which constraints said what may come next
