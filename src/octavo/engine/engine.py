"""Engine: requests in, tokens out, one step at a time. Token ids only: it knows no text.

A step is four verbs: schedule, forward, sample, update. One caller at a time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from octavo.config import EngineConfig
from octavo.engine.admission import Admission
from octavo.engine.cache_doors import CacheDoors, counts_of
from octavo.engine.decoding import make_decoding
from octavo.engine.decoding.draws import Draws
from octavo.engine.heap import give_back
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Branch, Request
from octavo.engine.runner import Forward
from octavo.engine.sampler import Sampler
from octavo.engine.scheduler import Scheduler
from octavo.engine.step import StepResult
from octavo.engine.step_budget import StepBudget
from octavo.engine.transaction import Transaction
from octavo.engine.update import Updater
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache
from octavo.records import StepRecord, Totals
from octavo.request import FinishReason, RequestOptions, RowValues
from octavo.sampling_params import SamplingParams

_EMPTY_IDLE = 5.0  # seconds after which the memory of blocks that hold nothing goes back
_TOTALS_AGE = 0.05  # seconds; adding up takes half a percent of the steps of a small model


class Engine:
    """The requests that have not ended, the KV cache, and the step that moves them on."""

    def __init__(
        self,
        runner: Forward,
        kv: KVCache,
        budget: StepBudget,
        config: EngineConfig,
        namespace: Namespace,
        *,
        context: int,
        eos_ids: frozenset[int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.kv = kv
        self.budget = budget
        self.namespace = namespace
        self._context = context
        self._longest_unasked = config.sliding_context or context  # an answer of no given length
        self._kv_idle = config.kv_idle
        self.clock = clock
        self.draws = Draws(
            runner.isa, runner.vocab_size, eos_ids, mask_words=runner.mask_words, clock=clock
        )
        self._num_added = 0
        requests = self.requests = LiveRequests(kv, keep_computed=config.kv_cache)
        self.admission = Admission(requests, kv, budget, config)
        self.scheduler = Scheduler(requests, self.admission, kv, budget, clock)
        self.sampler = Sampler(self.draws)
        self.updater = Updater(requests, kv, budget, clock, runner.op_names)
        self.cache = CacheDoors(requests, kv, self.admission, namespace, context)
        self._totals, self._added_up_at = Totals(), -inf

    def step(self, only: Request | None = None) -> StepResult:
        """Run one step, of one running request alone if it is given. Ends requests that are done,
        and those that are past their deadline. What a step did before it raised is in the result of
        the next."""
        # A request alone is run by the transaction of a step that raised: there it raises again.
        with Transaction(self.requests, self.scheduler, None if only else self.step):
            plan = self.scheduler.schedule(only)
            output = self.runner.forward(plan)
            decisions = self.sampler.sample(plan, output)
            self.updater.update(plan, output, decisions)
        return self.requests.take_result()

    @property
    def records(self) -> deque[StepRecord]:
        """The records of the steps so far, oldest first; a bounded number of them."""
        return self.updater.records

    @property
    def has_unfinished(self) -> bool:
        """Does a step have anything to do? It may be only to tell of an end."""
        return bool(self.requests.all or self.requests.result.finished)

    def add(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        options: RequestOptions,
        every_row: RowValues | None = None,
    ) -> Request:
        """Queue a prompt of at least one token, at most as long as the context (the caller has
        checked). `every_row`: what is wanted of each token of the prompt; log-probabilities if
        `params` say so. Raises UsageError, and OutOfMemoryError if it can never fit."""
        assert 0 < len(prompt) <= self._context
        room = self._context - len(prompt) + 1  # the last token drawn is never computed
        request = Request(
            id=self._num_added,
            params=params,
            options=options,
            prompt_token_ids=tuple(prompt),
            seed=int.from_bytes(os.urandom(8)) if params.seed is None else params.seed,
            sampling=params.sampling(),
            max_tokens=min(room, params.max_tokens or self._longest_unasked),
            every_row=every_row,
        )
        request.decoding = make_decoding(request, self.draws)
        self.admission.check(request)
        request.added_at = self.clock()
        if options.deadline_ms is not None:
            request.deadline = request.added_at + options.deadline_ms / 1e3
        # Whoever asks for rows alone neither finds nor leaves anything.
        rows_alone = request.every_row in ("logits", "scores", "hidden")
        request.is_private = rows_alone or not self.admission.prefix_cache
        private = request.is_private
        request.root = self.kv.open(None) if private else self.cache.root(options.cache_salt)
        self._num_added += 1
        try:
            self.requests.add(request)
        except BaseException:
            self.requests.all.pop(request, None)  # nobody knows it
            self.requests.recover()
            raise
        return request

    def finish(
        self, request: Request, reason: FinishReason, error: Exception | None = None
    ) -> None:
        """End a request early, wherever it is: nobody waits for it, or its text cannot be told."""
        request.error = request.error or error
        if request in self.requests.all:
            with Transaction(self.requests):
                self.requests.end(request, reason, tell=False)

    def finish_branch(self, branch: Branch, reason: FinishReason) -> None:
        """End one answer early, or say better why it ended: a stop string was found in it."""
        if branch.finish_reason is not None:
            self.requests.counters.rename_end(branch, reason)
            branch.finish_reason = reason
            return
        with Transaction(self.requests):
            self.requests.finish_branch(branch, reason)
            if not branch.request.live_branches:
                self.requests.end(branch.request, reason, tell=False)

    def reclaim(self) -> float | None:
        """Give the memory of idle blocks back to the system, and with it what else was freed; the
        seconds until some more may be idle, or None if none has memory."""
        if not self.has_unfinished:
            self.scheduler.forget()
        idle = self._kv_idle
        with Transaction(self.requests):
            transfers, seconds = self.kv.reclaim(empty_for=min(_EMPTY_IDLE, idle), cached_for=idle)
            self.runner.transfer(transfers)
        if transfers:
            give_back()
        return seconds

    def totals(self, cancels: int = 0, *, at_once: bool = True) -> Totals:
        """All that was done so far; who reads answers knows how many were cancelled. Unless it is
        wanted at once, while requests run what was true 50 ms ago will do."""
        now = self.clock()
        if at_once or not self.has_unfinished or now - self._added_up_at > _TOTALS_AGE:
            masks = self.draws.masks.seconds
            self._totals = self.requests.counters.totals(cancels=cancels, mask_seconds=masks)
            self._added_up_at = now
        return self._totals

    def counts(self) -> dict[str, int]:
        """Requests and KV blocks as they are."""
        return counts_of(self.requests, self.kv)

    def check_integrity(self) -> None:
        """Registry, queues, tables and cache agree; without running requests only pins hold."""
        self.requests.check_integrity()
        counts = self.kv.counts()
        assert self.requests.running or counts.blocks_used == counts.blocks_pinned
