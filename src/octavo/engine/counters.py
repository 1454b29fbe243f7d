"""Counters: what an engine has done since it was made. Each only grows.

Whoever does something counts it here; `totals` gives them out as one record. Decides nothing.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType

from octavo.engine.nouns import Branch, Request
from octavo.records import CacheReason, StepRecord, Totals
from octavo.request import FinishReason

_NOT_ASKED = (CacheReason.DISABLED, CacheReason.NEEDS_ALL_ROWS)


class Counters:
    def __init__(self) -> None:
        self.generated_tokens = 0
        self.preemptions = 0
        self._requests = self._prompt_tokens = 0
        self._queried_tokens = self._matched_tokens = 0
        self._steps = self._computed_tokens = 0
        self._step_seconds = self._forward_seconds = 0.0
        self._misses: Counter[CacheReason] = Counter()
        self._finished: Counter[str] = Counter()

    def begin(self, request: Request) -> None:
        """A request begins for the first time; what the cache has of it is noted."""
        assert request.cache is not None
        reason = request.cache.reason
        self._prompt_tokens += request.num_prompt_tokens
        if reason not in _NOT_ASKED:
            self._queried_tokens += request.num_prompt_tokens
            self._matched_tokens += request.cache.matched_tokens
        if reason is not None:
            self._misses[reason] += 1

    def step(self, record: StepRecord) -> None:
        self._steps += 1
        self._computed_tokens += record.computed_tokens
        self._step_seconds += record.seconds
        self._forward_seconds += record.forward_seconds

    def end(self, request: Request) -> None:
        """A request has ended, with all its answers."""
        self._requests += 1
        answers = sorted(request.branches, key=lambda branch: branch.index)[: request.params.n]
        self._finished.update(str(branch.finish_reason) for branch in answers)

    def rename_end(self, branch: Branch, reason: FinishReason) -> None:
        """An answer that ended is said to have done so for another reason."""
        if branch.request.finished:
            self._finished[str(branch.finish_reason)] -= 1
            self._finished[reason] += 1

    def totals(self, *, cancels: int, mask_seconds: float) -> Totals:
        return Totals(
            requests=self._requests,
            cancels=cancels,
            finished=MappingProxyType(dict(+self._finished)),
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self.generated_tokens,
            queried_tokens=self._queried_tokens,
            matched_tokens=self._matched_tokens,
            misses=MappingProxyType(dict(self._misses)),
            preemptions=self.preemptions,
            steps=self._steps,
            computed_tokens=self._computed_tokens,
            step_seconds=self._step_seconds,
            forward_seconds=self._forward_seconds,
            mask_seconds=mask_seconds,
        )
