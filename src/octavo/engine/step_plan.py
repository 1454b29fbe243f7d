"""StepPlan: which rows of which branches run in a step, and where their K and V lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from octavo.kv_cache.block_pool import BlockId
from octavo.kv_cache.manager import Copy
from octavo.request import Branch, Request


@dataclass(frozen=True, slots=True)
class ScheduledBranch:
    """Rows for tokens [begin, end) of a branch; the last row's output is sampled if `samples`."""

    branch: Branch
    begin: int
    end: int
    write_start: int  # rows before it are in their pages already
    blocks: Sequence[BlockId]

    @property
    def samples(self) -> bool:
        return self.end == self.branch.num_tokens


@dataclass(frozen=True, slots=True)
class StepPlan:
    scheduled: tuple[ScheduledBranch, ...] = ()
    copies: tuple[Copy, ...] = ()  # blocks to copy before the rows run, in this order
    num_preempted: int = 0

    @property
    def requests(self) -> list[Request]:
        return list(dict.fromkeys(s.branch.request for s in self.scheduled))
