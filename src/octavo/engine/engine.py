"""Engine: requests in, tokens out, one step at a time. Token ids only: it knows no text.

Owns the scheduler, the runner and the sampler. One caller at a time.

A step is a transaction. What raises before rows were computed changes nothing; the requests of such
a step are then run one at a time, which cannot change a bit of them: one that raises again ends
with its error, the others never notice. If none does, no request caused the error: it is raised to
the caller, and all requests live on. What raises while a request is booked ends that request alone;
an interrupt (`octavo.interrupts`) is always raised to the caller, and ends only beams that were
being booked.
"""

from __future__ import annotations

import secrets
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Container, Generator, Sequence
from dataclasses import dataclass, field

from octavo.batch import StepOutput, Want
from octavo.engine.beam import BeamSearch
from octavo.engine.growth import Growth
from octavo.engine.head_rows import HeadOutput, head_outputs, head_rows, step_batch
from octavo.engine.runner import Runner, make_batch
from octavo.engine.sampler import Sampler
from octavo.engine.scheduler import Scheduler
from octavo.engine.step_budget import StepBudget
from octavo.engine.step_log import StepLog, StepRun, occupancy
from octavo.engine.step_plan import StepPlan
from octavo.errors import OctavoError, OutOfMemoryError
from octavo.interrupts import is_interrupt
from octavo.kv_cache.manager import KVCacheManager
from octavo.kv_cache.names import Namespace
from octavo.records import StepRecord
from octavo.request import Branch, FinishReason, Metrics, Request, RequestOptions
from octavo.sampling_params import SamplingParams

_EMPTY_IDLE = 5.0  # seconds after which the memory of blocks that hold nothing goes back


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine holds requests to."""

    context: int
    eos_ids: frozenset[int]
    kv_idle: float = float("inf")  # seconds


@dataclass(slots=True)
class StepResult:
    """Sequences that got a token, and requests that ended, in the order it happened. `outputs`:
    what the last batch that ran gave, in its order."""

    grown: list[Branch] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)
    outputs: Sequence[HeadOutput] = ()


class Engine:
    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        kv: KVCacheManager,
        budget: StepBudget,
        limits: EngineLimits,
        namespace: Namespace,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._kv = kv
        self._budget = budget
        self._limits = limits
        self._namespace = namespace
        self._clock = clock
        self._sampler = Sampler(runner.isa, runner.vocab_size)
        self._growth = Growth(self._sampler, scheduler, limits.eos_ids)
        self._log = StepLog(kv, runner.op_names)
        self._result = StepResult()  # of the step that runs, or of one that raised
        self._open: dict[Request, None] = {}  # requests whose end was not settled
        self._deadlines: list[Request] = []  # unfinished requests that have one, soonest first
        self._num_added = 0

    @property
    def records(self) -> deque[StepRecord]:
        """Of the steps so far, oldest first; a bounded number of them."""
        return self._log.records

    @property
    def has_unfinished(self) -> bool:
        return bool(self._scheduler.num_running or self._scheduler.num_waiting)

    def add(
        self, prompt: Sequence[int], params: SamplingParams, options: RequestOptions
    ) -> Request:
        """Queue a prompt of at least one token, at most as long as the context (the caller has
        checked). Raises UsageError, and OutOfMemoryError if it can never fit."""
        assert 0 < len(prompt) <= self._limits.context
        room = self._limits.context - len(prompt) + 1  # the last token drawn is never computed
        request = Request(
            id=self._num_added,
            params=params,
            options=options,
            prompt_token_ids=tuple(prompt),
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            sampling=params.sampling(),
            # one that draws nothing takes the slots of one token: it is never computed
            max_tokens=min(room, room if params.max_tokens is None else params.max_tokens or 1),
        )
        search = self._growth.make_search(request)
        request.times.added = self._clock()
        if options.deadline_ms is not None:
            request.deadline = request.times.added + options.deadline_ms / 1e3
        return self._queue(request, search)

    def step(self) -> StepResult:
        """Run one step. Ends requests that are done, and those that are past their deadline. What a
        step did before it raised is in the result of the next."""
        with self._whole():
            self._end_late(self._result)
            self._step(self._result)
            result, self._result = self._result, StepResult()
        return result

    def finish(self, request: Request, reason: FinishReason) -> None:
        """End a request early, wherever it is: nobody waits for it."""
        with self._whole():
            if not request.finished:
                self._end(request, reason)

    def fail(self, request: Request, error: Exception) -> None:
        """End a request whose answers cannot be told."""
        request.error = error
        self.finish(request, "error")

    def retain(self, requests: Container[Request]) -> None:
        """End all others: an interrupt came before anybody knew them."""
        for request in self._scheduler.requests:
            if request not in requests:
                self.finish(request, "abort")

    def finish_branch(self, branch: Branch, reason: FinishReason) -> None:
        """End one answer early: a stop string was found in it, if only in the last of
        `max_tokens`."""
        request = branch.request
        with self._whole():
            if branch.finish_reason is None:
                self._scheduler.finish_branch(branch, reason)
            elif branch.finish_reason == "length":
                branch.finish_reason = reason
            if not request.finished and all(s.finish_reason for s in request.branches):
                self._end(request, reason)

    def metrics(self, request: Request) -> Metrics:
        """Of a finished request."""
        first, last = request.times.first_token, request.times.last_token
        more = sum(s.num_completion_tokens for s in request.branches) - len(request.branches)
        ttft = None if first is None else first - request.times.added
        decode = last - first if more > 0 and first is not None and last is not None else None
        cached = request.cache.matched_tokens if request.cache else 0
        return Metrics(
            ttft_ms=None if ttft is None else ttft * 1e3,
            tpot_ms=None if decode is None else decode * 1e3 / more,
            prefill_tps=(request.num_prompt_tokens - cached) / ttft if ttft else None,
            decode_tps=more / decode if decode else None,
            kv_bytes=request.peak_blocks * self._runner.block_bytes,
        )

    def all_rows(
        self, tokens: Sequence[int], want: Want, rows_of_step: int
    ) -> Generator[StepOutput, None, None]:
        """Run a whole prompt outside the scheduler, every row an output; one StepOutput a step.
        Nothing is read from the prefix cache, since every row has to run. Whoever does not read to
        its end closes it before anything else runs."""
        pool = self._kv.pool
        with self._whole():  # which frees the blocks too, since no branch has them
            blocks = pool.allocate(self._kv.count(len(tokens)))
            if blocks is None:
                raise OutOfMemoryError(
                    f"{len(tokens):,} tokens need more KV blocks than the {pool.num_free:,} free: "
                    f"{'wait for the requests that run or ' if self.has_unfinished else ''}"
                    "raise kv_memory"
                )
            for begin in range(0, len(tokens), rows_of_step):
                span = tokens[begin : begin + rows_of_step]
                groups = len(self._runner.layouts)
                wants = [want] * len(span)
                batch = make_batch([(span, begin)], [blocks], groups, range(len(span)), wants)
                yield self._runner.forward(batch)
            pool.free(reversed(blocks))

    def reclaim(self) -> float | None:
        """Give the memory of idle blocks back to the system; the seconds until some more may be
        idle, or None if none has memory."""
        now = self._clock()
        idle = self._limits.kv_idle
        with self._whole():
            blocks = self._kv.pool.reclaim(
                empty_since=now - min(_EMPTY_IDLE, idle), kept_since=now - idle
            )
            self._runner.release_blocks(blocks)
        empty, kept = self._kv.pool.oldest_empty, self._kv.pool.oldest_evictable
        due = [] if empty is None else [empty + min(_EMPTY_IDLE, idle)]
        due += [] if kept is None else [kept + idle]
        return max(0.0, min(due) - now) if due else None

    def counts(self) -> dict[str, int]:
        """Requests and KV blocks as they are."""
        pool = self._kv.pool
        return {
            "running": self._scheduler.num_running,
            "waiting": self._scheduler.num_waiting,
            "kv_blocks_total": pool.num_blocks,
            "kv_blocks_used": pool.num_held,
            "kv_blocks_kept": pool.num_evictable,
            "kv_blocks_evicted": pool.num_evicted,
            "kv_blocks_copied": self._kv.num_copied,
        }

    def check_integrity(self) -> None:
        """Scheduler, tables, pool and index agree; without running requests nothing is held."""
        self._scheduler.check_integrity()
        pool = self._kv.pool
        assert self._scheduler.num_running > 0 or pool.num_held == pool.num_pinned
        assert self._open.keys() == set(self._scheduler.requests)
        self._growth.check_integrity(self._open)
        assert set(self._deadlines) == {r for r in self._open if r.deadline is not None}
        assert self._deadlines == sorted(self._deadlines, key=_deadline)

    def _step(self, result: StepResult) -> None:
        """A step of all; if it raises, one of each of its requests alone."""
        plan, error = self._try(None, result)
        if error is None:
            return
        guilty = [r for r in plan.requests if self._fails_alone(r, result)]
        if not guilty:
            raise error

    def _fails_alone(self, request: Request, result: StepResult) -> bool:
        if request not in self._scheduler.running:
            return False  # another one's turn took its place
        _, error = self._try(request, result)
        if error is not None:
            self._fail(request, error, result)
        return error is not None

    def _try(self, only: Request | None, result: StepResult) -> tuple[StepPlan, Exception | None]:
        """Plan a step, of one request if it is given, run it and book what it gave; or an error
        before the booking, which changed nothing."""
        begin = self._clock()
        plan = self._scheduler.schedule(only)
        if not plan.scheduled:
            self._make_copies(plan)
            return plan, None
        try:
            run, result.outputs = self._run(plan)
        except Exception as error:
            self._recover()
            if is_interrupt(error):
                raise
            return plan, error
        for item in plan.scheduled:
            self._scheduler.commit(item)
        used = occupancy(self._kv, self._scheduler.tables)
        for request, outputs in _by_request(plan, result.outputs).items():
            try:
                self._book(request, outputs, result)
            except Exception as error:
                if is_interrupt(error):
                    self._interrupted(request, result)
                    raise
                self._fail(request, error, result)
            except BaseException:
                self._interrupted(request, result)
                raise
        seconds = self._clock() - begin
        self._budget.observe([(s.begin, s.end) for s in plan.scheduled], seconds)
        self._log.note(run, used, seconds=seconds, num_waiting=self._scheduler.num_waiting)
        return plan, None

    def _run(self, plan: StepPlan) -> tuple[StepRun, list[HeadOutput]]:
        rows = head_rows(plan, self._sampler)
        top_k = min(self._growth.num_candidates(plan.requests), self._runner.vocab_size)
        batch = step_batch(plan, rows, num_groups=len(self._runner.layouts), top_k=top_k)
        begin = self._clock()
        self._make_copies(plan)
        out = self._runner.forward(batch)
        return StepRun(plan, batch, out, self._clock() - begin), head_outputs(rows, out)

    def _make_copies(self, plan: StepPlan) -> None:
        if plan.copies:
            self._runner.copy_blocks(plan.copies)
            self._scheduler.commit_copies()

    def _book(self, request: Request, outputs: Sequence[HeadOutput], result: StepResult) -> None:
        """Append what the step gave a request to its branches; end it if it is done."""
        request.peak_blocks = max(request.peak_blocks, self._scheduler.num_blocks(request))
        if self._growth.grow(request, outputs, result.grown):
            request.times.note_token(self._clock())
            if self._growth.is_done(request):
                self._end(request, "stop", result)

    def _queue(self, request: Request, search: BeamSearch | None) -> Request:
        try:
            self._scheduler.add(request, self._namespace)
            self._num_added += 1
            self._open[request] = None
            self._growth.open(request, search)
            if request.deadline is not None:
                insort(self._deadlines, request, key=_deadline)
            return request
        except OctavoError:
            raise  # refused, before anything was changed
        except BaseException:
            request.finished = True  # nobody knows it
            self._open.pop(request, None)
            self._recover()
            raise

    def _end(
        self, request: Request, reason: FinishReason, result: StepResult | None = None
    ) -> None:
        """End a request; live branches end with `reason`, beams become the best hypotheses. May be
        called again for an end that an exception broke off."""
        if not request.finished:
            self._scheduler.finish(request, reason)
        self._growth.close(request, reason)
        if request.deadline is not None and request in self._deadlines:
            self._deadlines.remove(request)
        if result is not None and request not in result.finished:
            result.finished.append(request)
        self._open.pop(request, None)

    def _end_late(self, result: StepResult) -> None:
        now = self._clock()
        while self._deadlines and now >= _deadline(self._deadlines[0]):
            self._end(self._deadlines[0], "deadline", result)

    def _whole(self) -> _Whole:
        return _Whole(self._recover)

    def _fail(self, request: Request, error: Exception, result: StepResult) -> None:
        request.error = error
        self._break_off(request, "error", result)

    def _interrupted(self, request: Request, result: StepResult) -> None:
        """While it was booked, by what it did not cause: the rows that it and those after it draw
        from run again. Beams that have half advanced cannot."""
        if request.params.beam_width:
            self._break_off(request, "abort", result)
        else:
            self._recover()

    def _break_off(self, request: Request, reason: FinishReason, result: StepResult) -> None:
        """End a request that was being booked: its answers may not agree with each other."""
        self._recover()
        if request in self._open:
            self._end(request, reason, result)

    def _recover(self) -> None:
        """After an exception in the middle of a change: the scheduler sets all right that still
        runs; an end that had begun is brought to its end."""
        self._scheduler.recover()
        for request in self._scheduler.requests:
            if all(s.finish_reason for s in request.branches):
                self._scheduler.finish(request, "abort")
        for request in [r for r in self._open if r.finished]:
            self._end(request, "abort", self._result)
        self._growth.retain(self._open)
        self._deadlines = [r for r in self._deadlines if r in self._open]


class _Whole:
    """A change that an exception, Ctrl-C too, may break off anywhere. No generator makes it: one
    that a traceback kept would recover when that goes, in the middle of another change."""

    def __init__(self, recover: Callable[[], None]) -> None:
        self._recover = recover

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._recover()


def _deadline(request: Request) -> float:
    assert request.deadline is not None
    return request.deadline


def _by_request(plan: StepPlan, outputs: Sequence[HeadOutput]) -> dict[Request, list[HeadOutput]]:
    """Of every request of the plan, also those whose rows gave nothing."""
    found: dict[Request, list[HeadOutput]] = {request: [] for request in plan.requests}
    for output in outputs:
        found[output.row.item.branch.request].append(output)
    return found
