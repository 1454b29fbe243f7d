"""StepPlan: which rows of which sequences run in a step, and where their K and V lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.kv_cache.block_pool import BlockId
from octavo.kv_cache.manager import Copy
from octavo.request import Request
from octavo.request import Sequence as Seq


@dataclass(frozen=True, slots=True)
class ScheduledSequence:
    """Rows for tokens [begin, end) of a sequence; the last row's output is sampled if `samples`."""

    sequence: Seq
    begin: int
    end: int
    write_start: int  # rows before it are in their pages already
    blocks: Sequence[BlockId]

    @property
    def samples(self) -> bool:
        return self.end == self.sequence.num_tokens


@dataclass(frozen=True, slots=True)
class StepPlan:
    scheduled: tuple[ScheduledSequence, ...] = ()
    copies: tuple[Copy, ...] = ()  # blocks to copy before the rows run, in this order
    num_preempted: int = 0

    @property
    def requests(self) -> list[Request]:
        return list(dict.fromkeys(s.sequence.request for s in self.scheduled))
