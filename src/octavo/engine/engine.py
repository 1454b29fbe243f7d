"""Engine: requests in, tokens out, one step at a time. Token ids only: it knows no text.

A step is four verbs: schedule, forward, sample, update. One caller at a time.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from octavo.config import EngineConfig
from octavo.engine.admission import Admission
from octavo.engine.decoding import make_decoding
from octavo.engine.decoding.draws import Draws
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Branch, Request, StepResult
from octavo.engine.runner import Forward
from octavo.engine.sampler import Sampler
from octavo.engine.scheduler import Scheduler
from octavo.engine.step_budget import StepBudget
from octavo.engine.transaction import Transaction
from octavo.engine.update import Updater
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache, Root
from octavo.records import CacheView, Pin, StepRecord, Totals
from octavo.request import FinishReason, RequestOptions, RowValues
from octavo.sampling_params import SamplingParams

_EMPTY_IDLE = 5.0  # seconds after which the memory of blocks that hold nothing goes back


class Engine:
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
        self._kv_idle = config.kv_idle
        self.clock = clock
        self.draws = Draws(runner.isa, runner.vocab_size, eos_ids)
        self._num_added = 0
        requests = self.requests = LiveRequests(kv, keep_computed=config.kv_cache)
        self.admission = Admission(requests, kv, budget, config)
        self.scheduler = Scheduler(requests, self.admission, kv, budget, clock)
        self.sampler = Sampler(self.draws)
        self.updater = Updater(requests, kv, budget, clock, runner.op_names)

    def step(self, only: Request | None = None) -> StepResult:
        """Run one step, of one running request alone if it is given. Ends requests that are done,
        and those that are past their deadline. What a step did before it raised is in the result of
        the next."""
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
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            sampling=params.sampling(),
            max_tokens=min(room, params.max_tokens or room),
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
        request.root = self.kv.open(None) if private else self._root(options.cache_salt)
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
        """Give the memory of idle blocks back to the system; the seconds until some more may be
        idle, or None if none has memory."""
        idle = self._kv_idle
        with Transaction(self.requests):
            transfers, seconds = self.kv.reclaim(empty_for=min(_EMPTY_IDLE, idle), cached_for=idle)
            self.runner.transfer(transfers)
        return seconds

    def pin(self, tokens: Sequence[int], salt: str, most: int) -> Pin:
        """Keep the whole blocks of a prompt's beginning that are in the cache, until they are
        unpinned; none if more than `most` bytes would be pinned then, or the longest request that
        there is, or may come with one answer, would lack room."""
        if not self.admission.prefix_cache:
            return Pin(0, 0, "the prefix cache is off")
        needed = [self.admission.at_most(request) for request in self.requests.all]
        longest = max([self.kv.at_most(self._context), *needed])
        with Transaction(self.requests):
            pin = self.kv.pins.add(self._root(salt), tokens, min(most, self.kv.budget - longest))
        return pin

    def unpin(self, pin: Pin) -> bool:
        """Give up a pin; its tokens can be found until their memory is needed. False if it was
        given up before, or cleared."""
        with Transaction(self.requests):
            was_pinned = self.kv.pins.remove(pin)
        return was_pinned

    def cached(self, tokens: Sequence[int], salt: str) -> int:
        """How many of these tokens the cache has, from the first on."""
        if not self.admission.prefix_cache:
            return 0
        return min(self.kv.match(self._root(salt), tokens).num_tokens, len(tokens))

    def view(self, salt: str, most: int = 20) -> CacheView:
        """The cache as it is; pins and prefixes, at most so many, of one salt alone."""
        root, counts = self._root(salt), self.counts()
        slots = counts["kv_blocks_used"] * self.kv.block_size
        return CacheView(
            counts=counts,
            waste=self.kv.slots_unfilled / slots if slots else 0.0,
            pins=tuple(self.kv.pins.of(root)),
            prefixes=tuple(self.kv.uses.top(root, most)),
        )

    def clear(self, salt: str | None) -> int:
        """Give up all pins of a salt, or of all (None), and forget what no running request holds;
        how many blocks that were."""
        with Transaction(self.requests):
            count = self.kv.clear(salt)
        return count

    def totals(self, cancels: int = 0) -> Totals:
        """All that was done so far; who reads answers knows how many were cancelled."""
        return self.requests.counters.totals(cancels=cancels)

    def counts(self) -> dict[str, int]:
        """Requests and KV blocks as they are."""
        blocks = self.kv.counts()
        return {
            "running": len(self.requests.running),
            "waiting": len(self.requests.waiting),
            "kv_blocks_total": blocks.blocks_total,
            "kv_blocks_used": blocks.blocks_used,
            "kv_blocks_kept": blocks.blocks_cached,
            "kv_blocks_pinned": blocks.blocks_pinned,
            "kv_blocks_evicted": blocks.blocks_evicted,
            "kv_blocks_copied": blocks.blocks_copied,
            "kv_bytes_used": blocks.bytes_used,
            "kv_bytes_kept": blocks.bytes_cached,
            "kv_bytes_empty": blocks.bytes_empty,
        }

    def check_integrity(self) -> None:
        """Registry, queues, tables and cache agree; without running requests only pins hold."""
        self.requests.check_integrity()
        counts = self.kv.counts()
        assert self.requests.running or counts.blocks_used == counts.blocks_pinned

    def _root(self, salt: str) -> Root:
        return self.kv.open(replace(self.namespace, salt=salt))
