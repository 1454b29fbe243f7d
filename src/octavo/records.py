"""What is counted while requests run: StepRecord and CacheRecord. The one source for stats, metrics
and bench."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CacheReason(StrEnum):
    """Why a prompt's tokens were not all found in the cache."""

    COLD = "cold"  # nothing was kept yet
    DIVERGED = "diverged"
    EVICTED = "evicted"
    DISABLED = "disabled"
    SALT = "salt"
    DTYPE = "dtype"
    MODEL_CHANGED = "model-changed"
    WINDOW = "window"
    NEEDS_ALL_ROWS = "needs-all-rows"


class CacheSource(StrEnum):
    """Where matched tokens came from."""

    NONE = "none"
    PROCESS = "process"
    DISK = "disk"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One request's use of the prefix cache."""

    matched_tokens: int = 0
    source: CacheSource = CacheSource.NONE
    reason: CacheReason = CacheReason.DISABLED
    diverged_at: int | None = None
    diverged_text: str | None = None
    saved_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step as it ran. Counts are read off the batch that the program was given."""

    step: int
    num_requests: int
    computed_tokens: int  # rows: tokens whose K and V were computed and written in this step
    cached_tokens: int  # tokens of these sequences whose K and V were only read
    output_rows: int
    seconds: float  # the whole step: schedule, forward, sample, update
    forward_seconds: float
    kv_blocks_used: int
    kv_blocks_total: int
    op_ns: tuple[tuple[str, int], ...] = ()  # by op class, when the counters are on
