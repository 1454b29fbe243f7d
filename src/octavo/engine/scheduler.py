"""Scheduler: which requests run in the next step, how many tokens of each, in which blocks.

One rule: a request catches its `num_computed_tokens` up to its `num_tokens`; there is no prefill
phase and no decode phase. Knows ids and counts; sees no text and no arrays. First come, first
served; a request is admitted when the blocks of its longest possible answer can be had, so an
admitted one always ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from octavo.errors import OutOfMemoryError
from octavo.kv_cache.block_pool import BlockId, BlockPool
from octavo.request import FinishReason, Request


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """Rows for tokens [begin, end) of a request; the last row's output is sampled if `samples`."""

    request: Request
    begin: int
    end: int
    blocks: Sequence[BlockId]

    @property
    def samples(self) -> bool:
        return self.end == self.request.num_tokens


@dataclass(frozen=True, slots=True)
class StepPlan:
    scheduled: tuple[ScheduledRequest, ...]

    @property
    def sampled(self) -> tuple[ScheduledRequest, ...]:
        return tuple(s for s in self.scheduled if s.samples)


class Scheduler:
    def __init__(
        self,
        pool: BlockPool,
        *,
        block_size: int,
        max_batch_tokens: int,
        max_num_seqs: int,
        keep_computed: bool = True,
    ) -> None:
        """`keep_computed=False` forgets K and V after every token: the run without a cache."""
        self._pool = pool
        self._block_size = block_size
        self._max_batch_tokens = max_batch_tokens
        self._max_num_seqs = max_num_seqs
        self._keep_computed = keep_computed
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._blocks: dict[int, list[BlockId]] = {}  # request id -> its block table
        self._promised = 0  # blocks that running requests may hold at their longest

    @property
    def has_unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def add(self, request: Request) -> None:
        """Queue a request. Raises OutOfMemoryError, with both numbers, if it can never fit."""
        needed = self._longest(request)
        if needed > self._pool.num_blocks:
            raise OutOfMemoryError(
                f"the request may need {needed} KV blocks of {self._block_size} tokens, "
                f"the pool has {self._pool.num_blocks}: lower max_tokens or raise kv_memory"
            )
        self._waiting.append(request)

    def schedule(self) -> StepPlan:
        self._admit()
        budget = self._max_batch_tokens
        scheduled: list[ScheduledRequest] = []
        for request in self._running:
            begin = request.num_computed_tokens
            end = min(request.num_tokens, begin + budget)
            if not self._keep_computed and end < request.num_tokens and scheduled:
                continue  # without a cache a sequence is computed whole, in a step with room for it
            if end > begin:
                scheduled.append(ScheduledRequest(request, begin, end, self._reserve(request, end)))
                budget -= end - begin
        return StepPlan(tuple(scheduled))

    def update(self, plan: StepPlan, tokens: Mapping[int, int]) -> None:
        """Book what the step computed; `tokens` holds the drawn token of each request that
        sampled."""
        for item in plan.scheduled:
            request = item.request
            request.num_computed_tokens = item.end
            if request.id in tokens:
                request.tokens.append(tokens[request.id])
                if not self._keep_computed:
                    request.num_computed_tokens = 0

    def finish(self, request: Request, reason: FinishReason) -> None:
        """End a request, wherever it is, and free its blocks. A second end is a bug of the
        caller."""
        assert request.finish_reason is None
        request.finish_reason = reason
        if request in self._running:
            self._running.remove(request)
            self._promised -= self._longest(request)
            self._pool.free(reversed(self._blocks.pop(request.id)))
        else:
            self._waiting.remove(request)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_num_seqs:
            needed = self._longest(self._waiting[0])
            if self._promised + needed > self._pool.num_blocks:
                return
            request = self._waiting.popleft()
            self._promised += needed
            self._blocks[request.id] = []
            self._running.append(request)

    def _reserve(self, request: Request, num_tokens: int) -> list[BlockId]:
        table = self._blocks[request.id]
        more = self._pool.allocate(max(0, self._count(num_tokens) - len(table)))
        assert more is not None, "admission promised these blocks"
        table.extend(more)
        return table

    def _longest(self, request: Request) -> int:
        # The last token drawn is never computed, so its K and V need no slot.
        return self._count(request.num_prompt_tokens + request.max_tokens - 1)

    def _count(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)
